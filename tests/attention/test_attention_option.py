"""`options["attention"]`: names of attentions, what cannot be asked for, what the report says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.kernels.problem import DenseUse
from sparsecompile.report.facts import NodeReport


class Block(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Block()
        self.mlp = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attn(x))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def explained(**options: Any) -> sc.Report:
    model = Layers().requires_grad_(False)
    return sc.explain(model, torch.randn(1, 2, 70, 16), tune="off", **options)


def attentions(report: sc.Report) -> list[NodeReport]:
    return [node for node in report.nodes if node.reader == "attention"]


def test_by_name_and_in_the_report() -> None:
    report = explained(attention={"layers.{0-1}.attn": "window(8)", "*.2.attn": "global(2)"})
    masks = {node.weight: (node.mask, node.lossy) for node in attentions(report)}
    assert masks == {
        "layers.0.attn": ("causal & window(8)", "attention window(8)"),
        "layers.1.attn": ("causal & window(8)", "attention window(8)"),
        "layers.2.attn": ("causal & global(2)", "attention global(2)"),
    }
    text = str(report)
    assert "lossy: attention window(8) on 2 attentions: the compiled model computes" in text
    assert "lossy: attention global(2) on 1 attention: " in text


def test_others_are_left_as_they_are() -> None:
    report = explained(attention={"*.1.attn": "window(8)"}, strict=True)
    assert [node.lossy for node in attentions(report)] == ["", "attention window(8)", ""]
    assert [node.mask for node in attentions(report)] == [
        "is_causal",
        "causal & window(8)",
        "is_causal",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("layers.7.attn", "'layers.7.attn' of option 'attention' matches no module; did you mean"),
        (
            "*.mlp",
            r"pattern '\*.mlp' of option 'attention' matches no attention; known: .layers.0.attn",
        ),
    ],
)
def test_names_that_match_no_attention(names: str, message: str) -> None:
    with pytest.raises(sc.OptionError, match=message):
        explained(attention={names: "window(8)"})


@torch.no_grad()
def test_names_that_match_no_attention_of_what_is_compiled_are_said() -> None:
    backend = sc.Compiler(attention={"*.mlp": "window(8)"}, tune="off")
    torch.compile(Layers().requires_grad_(False), backend=backend)(torch.randn(1, 2, 70, 16))
    assert "'*.mlp' of option 'attention' matches no attention" in str(backend.report)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("windw(8)", "no mask is called 'windw'; did you mean 'window'"),
        ("window(0)", "window: size is 0; it needs 1 or more"),
        ("window(3", "parentheses do not match"),
        ("padding(1*5,0*3)", "padding: 8 keys, the matrix has positions up to"),
        (3, "'attention' must be a recipe or a mapping from patterns of module names to recipes"),
        ({"*": 3}, r"strings, or functions\), not {'\*': 3}"),
        (lambda b, h, q, kv: 3, r"the mask <lambda>\(b, h, q, kv\) returned int; return a bool"),
        (lambda b, h, q, kv: 1 / 0, "raised ZeroDivisionError: division by zero for places"),
    ],
)
def test_what_cannot_be_asked_for(given: Any, message: str) -> None:
    with pytest.raises(sc.OptionError, match=message):
        sc.Compiler(attention=given)
    with pytest.raises(sc.OptionError, match=message):
        sc.Compiler(passes={"sparsify_attention": {"recipe": given}})


def test_a_pattern_of_other_heads() -> None:
    with pytest.raises(
        sc.OptionError,
        match=r"per_head\(window\(3\);causal;full\) is of 3 heads, layers.0.attn has 2; give",
    ):
        explained(attention="per_head(window(3);causal;full)")


def test_a_predicate_that_raises_for_these_heads() -> None:
    table = torch.tensor([3])
    with pytest.raises(sc.OptionError, match="raised IndexError: index 1 is out of bounds"):
        explained(attention=lambda b, h, q, kv: q - kv < table[h])


def test_gpus_have_no_masks_on_request() -> None:
    report = explained(attention="window(8)", target="sm_90")
    for node in attentions(report):
        assert not node.lossy
        assert node.reason == (
            "without window(8), which is asked for: masks on request are made on CPUs alone"
        )


@torch.no_grad()
def test_dense_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would attend to every key: what is measured are kernels alone."""
    report = explained(attention="window(8)")
    assert all(node.kernel is not None for node in attentions(report))
    from sparsecompile.operators.attention.operator import Attention

    seen: list[DenseUse] = []
    problem = Attention.problem

    def noted(self: Attention, *args: Any) -> Any:
        found = problem(self, *args)
        seen.append(found.dense)
        return found

    monkeypatch.setattr(Attention, "problem", noted)
    explained(attention={"layers.0.attn": "window(8)"})
    assert seen == [DenseUse.NEVER, DenseUse.ALONE, DenseUse.ALONE]


def test_nothing_is_sparse_unless_asked() -> None:
    assert not any(node.lossy for node in attentions(explained()))
