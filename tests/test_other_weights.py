"""Weights with zeros that no linear reads are named, with what reads them; `strict` raises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsecompile as sc


def half_zeros(module: nn.Module) -> nn.Module:
    """A module in whose parameters of two and more dimensions every second value is zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.view(-1)[::2] = 0
    return module.eval().requires_grad_(False)


class Experts(nn.Module):
    """Expert weights in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(4, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x.expand(4, *x.shape), self.experts)


class Attention(nn.Module):
    """Attention whose weights are handed to one function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, x, x)


READ: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, str]]] = {
    "Conv1d": (lambda: nn.Conv1d(8, 8, 3), (2, 8, 9), {"weight": "conv1d"}),
    "Conv2d": (lambda: nn.Conv2d(8, 8, 3), (2, 8, 9, 9), {"weight": "conv2d"}),
    "Conv3d": (lambda: nn.Conv3d(8, 8, 3), (2, 8, 5, 5, 5), {"weight": "conv3d"}),
    "transposed": (
        lambda: nn.ConvTranspose2d(8, 8, 3),
        (2, 8, 5, 5),
        {"weight": "conv_transpose2d"},
    ),
    "Bilinear": (lambda: BilinearOfOne(), (4, 8), {"inner.weight": "bilinear"}),
    "experts": (Experts, (5, 32), {"experts": "bmm"}),
    "LSTMCell": (
        lambda: nn.LSTMCell(32, 16),
        (4, 32),
        {"weight_ih": "lstm_cell", "weight_hh": "lstm_cell"},
    ),
    "GRUCell": (
        lambda: nn.GRUCell(32, 16),
        (4, 32),
        {"weight_ih": "gru_cell", "weight_hh": "gru_cell"},
    ),
}


class BilinearOfOne(nn.Module):
    """A bilinear form of an input with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Bilinear(8, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x)


@pytest.mark.parametrize("name", READ)
@torch.no_grad()
def test_what_reads_a_weight_with_zeros_is_named(name: str) -> None:
    make, shape, readers = READ[name]
    model, backend, x = half_zeros(make()), Packing(), torch.randn(shape)
    torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
    report = backend.compiler.report
    assert {node.weight: node.reader for node in report.nodes} == readers
    for node in report.nodes:
        assert node.shape == tuple(model.get_parameter(node.weight).shape)
        assert node.zeros == pytest.approx(0.5)
        assert node.reason == f"read by {node.reader}: there is no kernel for it"
    assert str(report).startswith("no linear was found in 1 graph | ")
    assert f"{len(readers)} weight{'s' * (len(readers) > 1)} read by no linear" in str(report)


@pytest.mark.parametrize("name", READ)
@torch.no_grad()
def test_strict_counts_what_is_read_by_no_linear(name: str) -> None:
    make, shape, readers = READ[name]
    model, x = half_zeros(make()), torch.randn(shape)
    weight, reader = next(iter(readers.items()))
    message = rf"{weight} was left dense: read by {reader}: .* \(50.0% of it is zeros\)"
    with pytest.raises(sc.RejectedError, match=message) as raised:
        torch.compile(model, backend="sparse", options={"strict": True})(x)
    assert (raised.value.node, raised.value.zeros) == (weight, pytest.approx(0.5))


@pytest.mark.parametrize("fast", [False, True])
@torch.no_grad()
def test_attention_names_its_weights(fast: bool) -> None:
    model, x = half_zeros(Attention()), torch.randn(3, 2, 32)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        report = sc.explain(model, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    names = {"inner.in_proj_weight", "inner.out_proj.weight"}
    assert {node.weight for node in report.nodes} == names
    assert all(node.packed or node.reader for node in report.nodes)


def test_embeddings_are_named_unless_a_linear_has_the_same_weight() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(64, 32), nn.Embedding(8, 32)
            self.head = nn.Linear(32, 64, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.tokens(ids) + self.places(ids % 8))

    report = sc.explain(half_zeros(Tied()), torch.arange(9))
    assert {node.weight: node.reader for node in report.nodes} == {
        "tokens.weight": "",
        "places.weight": "embedding",
    }
    assert report.nodes[0].packed
    assert str(report).startswith("1 of 1 linears packed | ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_zeros_are_no_news(dtype: torch.dtype) -> None:
    """Named is what takes fewer bytes with a bit for every value."""
    bits = 8 * dtype.itemsize
    model = nn.Conv2d(16, 32, 1).to(dtype).requires_grad_(False)
    values, x = model.weight.view(-1), torch.randn(1, 16, 4, 4).to(dtype)
    values[: len(values) // bits] = 0
    assert not sc.explain(model, x, strict=True).nodes
    values[len(values) // bits] = 0
    assert [node.reader for node in sc.explain(model, x).nodes] == ["conv2d"]


def test_a_pruned_convolution_whose_weight_is_computed_is_named() -> None:
    model = nn.Conv2d(8, 8, 3).requires_grad_(False)
    prune.random_unstructured(model, "weight", 0.5)
    (node,) = sc.explain(model, torch.randn(1, 8, 5, 5)).nodes
    assert node.weight == "weight_mask x weight_orig"
    assert node.zeros == pytest.approx(0.5)
    assert node.reader == "conv2d"


def test_a_computed_weight_that_cannot_be_looked_at_is_not_named() -> None:
    """As where gradients are on."""
    model = nn.Conv2d(8, 8, 3)
    prune.random_unstructured(model, "weight", 0.5)
    backend, x = Packing(), torch.randn(1, 8, 5, 5)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert not backend.compiler.report.nodes


class OwnLSTM(nn.LSTM):
    """Dynamo does not trace what derives from them either."""


RECURRENT = {"nn.LSTM": nn.LSTM, "nn.GRU": nn.GRU, "nn.RNN": nn.RNN, "OwnLSTM": OwnLSTM}


class Tagger(nn.Module):
    """A recurrent module and a linear behind it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = RECURRENT[kind](32, 16, batch_first=True)
        self.head = nn.Linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0])


def reason(kind: str) -> str:
    return f"read by {kind}: Dynamo does not trace it, there is no kernel for it"


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_modules_alone_are_explained_though_there_is_no_graph(kind: str) -> None:
    model, x = half_zeros(RECURRENT[kind](32, 16, batch_first=True)), torch.randn(2, 3, 32)
    report = sc.explain(model, x)
    assert report.graphs == 0
    assert [(node.weight, node.reason) for node in report.nodes] == [
        ("weight_ih_l0", reason(kind)),
        ("weight_hh_l0", reason(kind)),
    ]
    assert str(report).startswith("no graph was compiled | 2 weights read by no linear | ")
    facts = json.loads(report.to_json())["nodes"][0]
    assert (facts["graph"], facts["reader"], facts["packed"]) == (None, kind, False)
    message = rf"weight_ih_l0 was left dense: read by {kind}: .* \(50.0% of it is zeros\)"
    with pytest.raises(sc.RejectedError, match=message):
        sc.explain(model, x, strict=True)


@pytest.mark.skipif(torch.__version__.startswith("2.11"), reason="an older torch traces neither")
@pytest.mark.parametrize("kind", RECURRENT)
@torch.no_grad()
def test_recurrent_modules_beside_graphs_are_named_and_strict_raises(kind: str) -> None:
    model, x = half_zeros(Tagger(kind)), torch.randn(2, 3, 32)
    backend = Packing()
    close(torch.compile(model, backend=backend)(x), model(x))
    assert backend.packed == ["head.weight"]
    for name in ("body.weight_ih_l0", "body.weight_hh_l0"):
        assert backend.reason(name) == reason(kind)
    torch._dynamo.reset()
    with pytest.raises(sc.RejectedError, match=r"body\.weight_ih_l0 was left dense: read by"):
        torch.compile(model, backend="sparse", options={"strict": True})(x)
    torch._dynamo.reset()
    with pytest.raises(sc.RejectedError, match=r"body\.weight_ih_l0 was left dense: read by"):
        sc.explain(model, x, strict=True)


@torch.no_grad()
def test_a_recurrent_module_that_dynamo_is_asked_to_trace_is_read_by_a_graph() -> None:
    model, x = half_zeros(Tagger("nn.LSTM")), torch.randn(2, 3, 32)
    with torch._dynamo.config.patch(allow_rnn=True):
        report = sc.explain(model, x)
    readers = {node.weight: node.reader for node in report.nodes if node.reader}
    assert readers == {"body.weight_ih_l0": "lstm", "body.weight_hh_l0": "lstm"}


def test_what_runs_outside_of_the_graphs_and_what_does_not_run_is_named() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = nn.Linear(32, 32), nn.Linear(32, 32)
            self.unused, self.dense = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(torch._dynamo.disable(self.outside)(x))

    model = half_zeros(Partly())
    model.dense.weight.fill_(1)
    report = sc.explain(model, torch.randn(2, 32))
    assert [node.weight for node in report.nodes if node.packed] == ["inside.weight"]
    left = {node.weight: node.reason for node in report.nodes if not node.packed}
    assert left == dict.fromkeys(
        ("outside.weight", "unused.weight"),
        "read by no graph: Dynamo runs its nn.Linear outside of them, or the inputs do not "
        "lead to it",
    )


def test_of_a_function_what_no_graph_reads_is_not_known() -> None:
    model = MLP().requires_grad_(False)
    unused = sparse_(nn.Linear(32, 32))
    report = sc.explain(lambda x: model(x) if unused is not None else x, torch.randn(2, 32))
    assert {node.weight for node in report.nodes if node.packed} == {
        node.weight for node in report.nodes
    }
