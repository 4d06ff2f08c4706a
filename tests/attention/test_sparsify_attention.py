"""`options["attention"]`: fewer keys on request, said in the report; refusals, names, options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention.spellings import SPELLINGS, repeat_kv
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.kernels.problem import DenseUse
from sparsecompile.operators.attention.asked import asked_for, remember
from sparsecompile.operators.attention.keys import kept_keys
from sparsecompile.report.facts import NodeReport
from sparsecompile.testing.laws import assert_no_worse

BY_NAME = {spelling.name: spelling.run for spelling in SPELLINGS}
Run = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def drawn(queries: int, keys: int, kv_heads: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = [(2, 4, queries, 16)] + 2 * [(2, kv_heads, keys, 16)]
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    mask = torch.rand(2, 1, queries, keys, generator=generator) < 0.7
    mask[..., 0] = True
    return [q, k, v, mask]


def padded_eager(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Causal, with padding on the left: masks are added, and some queries have no key."""
    place = torch.arange(q.shape[2])
    kept = (place <= place[:, None]) & keep[:, None, None]
    mask = torch.where(kept, 0.0, torch.finfo(q.dtype).min)
    weights = torch.matmul(q, repeat_kv(k).transpose(2, 3)) * 0.25 + mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, repeat_kv(v))


def padded_and_capped(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    place = torch.arange(q.shape[2])
    kept = (place <= place[:, None]) & keep[:, None, None]
    mask = torch.where(kept, 0.0, torch.finfo(q.dtype).min)
    scores = torch.tanh(torch.matmul(q, repeat_kv(k).mT) * 0.25 / 5.0) * 5.0
    return torch.matmul(F.softmax(scores + mask, dim=-1), repeat_kv(v))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, cap: float) -> Tensor:
    """With an explicit mask."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if not cap:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    scores = cap * torch.tanh(q @ k.mT * scale / cap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


def check(
    run: Run, args: list[Tensor], own: Tensor, text: str, scale: float, cap: float = 0
) -> str:
    """What is compiled is the model with the pattern as its mask; how the report calls that."""
    q, k, v, _ = args
    backend = sc.Compiler(attention=text, tune="off")
    with torch.no_grad():
        ours = torch.compile(run, backend=backend)(*args)
    name = remember(asked_for(text))
    mask = kept_keys(q, k, own, False, name)
    rows = mask.any(-1).expand(q.shape[:3])
    assert rows.any()
    assert not ours[~rows].any()
    eager = dense(q, k, v, mask, scale, cap)
    exact = dense(q.double(), k.double(), v.double(), mask, scale, cap)
    assert_no_worse(ours[rows], eager[rows], exact[rows])
    (node,) = backend.report.nodes
    assert node.kernel is not None, node.reason
    assert node.lossy == f"attention {asked_for(text)}"
    return node.mask


@pytest.mark.parametrize(
    ("spelling", "kv_heads", "own", "scale"),
    [
        ("plain", 4, "", 0.25),
        ("grouped", 2, "causal & ", 0.25),
        ("repeated", 2, "scanned & ", 0.25),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["window(9)", "window(9) + global(2)", "top_blocks(0.2)"],
)
def test_computes_the_model_with_that_mask(
    spelling: str, kv_heads: int, own: str, scale: float, text: str
) -> None:
    args = drawn(150, 150, kv_heads)
    mask = torch.ones(1, 1, 150, 150, dtype=torch.bool)
    mask = args[3] if spelling == "repeated" else mask.tril() if own else mask
    shown = f"({text})" if own and "+" in text else text
    assert check(BY_NAME[spelling], args, mask, text, scale) == own + shown


@pytest.mark.parametrize("text", ["window(9) + global(2)", "clusters(4)", "top_blocks(0.2)"])
@pytest.mark.parametrize("spelling", ["plain", "repeated"])
def test_one_query(spelling: str, text: str) -> None:
    """For which nothing is chosen."""
    args = drawn(1, 150, 4 if spelling == "plain" else 2)
    mask = args[3] if spelling == "repeated" else torch.ones(1, 1, 1, 150, dtype=torch.bool)
    own = "padding & " if spelling == "repeated" else ""
    shown = f"({text})" if own and "+" in text else text
    assert check(BY_NAME[spelling], args, mask, text, 0.25) == own + shown


@pytest.mark.parametrize(("run", "cap"), [(padded_eager, 0), (padded_and_capped, 5.0)])
@pytest.mark.parametrize("text", ["window(9)", "strided(8)"])
def test_added_masks_with_padding(run: Run, cap: float, text: str) -> None:
    q, k, v, _ = drawn(70, 70, 2)
    keep = torch.ones(2, 70, dtype=torch.bool)
    keep[1, :20] = False
    own = torch.ones(70, 70, dtype=torch.bool).tril() & keep[:, None, None]
    found = check(run, [q, k, v, keep], own, text, 0.25, cap)
    assert found == f"causal & padding & {text}"


@torch.no_grad()
def test_a_predicate() -> None:
    q, k, v, _ = drawn(70, 70)

    def every_third(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (q - kv) % (3 + h) == 0

    backend = sc.Compiler(attention=every_third, tune="off")
    ours = torch.compile(BY_NAME["plain"], backend=backend)(q, k, v, k)
    place = torch.arange(70)
    mask = (place[:, None] - place) % (3 + torch.arange(4))[:, None, None] == 0
    exact = dense(q.double(), k.double(), v.double(), mask, 0.25, 0)
    assert_no_worse(ours, dense(q, k, v, mask, 0.25, 0), exact)
    (node,) = backend.report.nodes
    assert node.mask == "predicate[every_third]"
    assert node.lossy == "attention predicate[every_third]"


@torch.no_grad()
def test_a_new_length_compiles_nothing() -> None:
    backend = sc.Compiler(attention="window(9) + global(2)", tune="off")
    compiled = torch.compile(BY_NAME["plain"], backend=backend)
    name = remember(asked_for("window(9) + global(2)"))
    for queries, keys in ((33, 70), (80, 80), (12, 90)):
        q, k, v, mask = drawn(queries, keys)
        for tensor in (q, k, v, mask):
            torch._dynamo.mark_dynamic(tensor, 2)
        kept = kept_keys(q, k, None, False, name)
        exact = dense(q.double(), k.double(), v.double(), kept, 0.25, 0)
        assert_no_worse(compiled(q, k, v, mask), dense(q, k, v, kept, 0.25, 0), exact)
    assert backend.report.graphs == 1


@torch.no_grad()
def test_layers_share_tiles_where_nothing_is_chosen() -> None:
    def layers(q: Tensor, mask: Tensor) -> Tensor:
        for _ in range(3):
            q = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return q

    q, _, _, mask = drawn(70, 70)
    for text, count in (("window(9) + global(2)", 1), ("top_blocks(0.5)", 3)):
        report = sc.explain(layers, q, mask, attention=text)
        assert report.after.count("scanned_tiles(") == 1
        assert report.after.count(" = sparsecompile_operators_attention_asked_tiles") == count


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


@torch.no_grad()
def test_biases_are_refused() -> None:
    q, k, v, _ = drawn(70, 70)
    bias = torch.randn(1, 1, 70, 70)
    run = BY_NAME["with_bias"]
    report = sc.explain(run, q, k, v, bias, attention="window(9)", tune="off")
    (node,) = report.nodes
    assert node.mask == "scanned, added"
    assert not node.lossy
    assert node.reason.startswith(
        "without window(9), which is asked for: its mask is added to the scores, and may add more "
        "than what drops keys: "
    )
    assert node.reason.endswith("; a pattern goes with masks that only drop keys")
    assert "without window(9), which is asked for" in " ".join(str(report).split())
    with pytest.raises(sc.RejectedError, match="without window"):
        sc.explain(run, q, k, v, bias, attention="window(9)", strict=True)


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
