"""Kernels and the dense linear, chosen by measurements that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.lowering import ROWS

LARGE = 16
"""The last m at which packed functions win where dense wins for large m."""


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tuned:
    return Tuned(monkeypatch, tmp_path / "record")


class Attention(nn.Module):
    """Linears of one input, with what may follow them."""

    def __init__(self, parts: int = 3, bias: bool = True) -> None:
        super().__init__()
        sizes = (32, 16, 8)[:parts]
        self.parts = nn.ModuleList(sparse_(nn.Linear(64, n, bias=bias)) for n in sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) * (i + 1) for i, part in enumerate(self.parts))


class Views(Attention):
    """As attention does it: heads are views of the linears' results."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x).view(*x.shape[:-1], -1, 4).transpose(-2, -3) for part in self.parts)


class Gate(nn.Module):
    """An activation, a gate and a residual."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.gate, self.up = (sparse_(nn.Linear(64, 96, bias=bias)) for _ in range(2))
        self.down = sparse_(nn.Linear(96, 64, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Transposed(nn.Module):
    """A weight that is stored `[k, n]`."""

    def __init__(self) -> None:
        super().__init__()
        kept = sparse_(nn.Linear(64, 32)).weight.detach().t().contiguous()
        self.weight = nn.Parameter(kept, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Tied(nn.Module):
    """One weight, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = sparse_(nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.relu(self.inner(x)))


MODELS = {
    "linear": lambda: sparse_(nn.Linear(64, 32)),
    "no bias": lambda: sparse_(nn.Linear(64, 32, bias=False)),
    "residual": lambda: MLP(64),
    "two parts": lambda: Attention(2),
    "three parts": Attention,
    "three parts, no bias": lambda: Attention(bias=False),
    "views": Views,
    "gate": Gate,
    "gate, no bias": lambda: Gate(bias=False),
    "transposed": Transposed,
    "tied": Tied,
}


def nodes_of(backend: Packing) -> tuple[sc.NodeReport, ...]:
    return backend.compiler.report.nodes


def agree(fast: Any, model: nn.Module, x: Tensor) -> None:
    found, expected = fast(x), model(x)
    assert type(found) is type(expected)
    for a, b in zip(
        *((y,) if isinstance(y, Tensor) else y for y in (found, expected)), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_packed_wins_everywhere(name: str, tuned: Tuned) -> None:
    model, backend = MODELS[name](), Packing(tune="fast")
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        agree(fast, model, torch.randn(4, 64))
    assert nodes_of(backend)
    for node in nodes_of(backend):
        assert node.kernel is not None
        assert node.kernel.reason == node.chosen_by == "measured"
        assert not any("dense" in part for part in node.kernel.ranges)
        assert {t.rows for t in node.trials} == {1, 4, 128}
        (chosen,) = (t for t in node.trials if t.chosen)
        assert chosen.rows == 4
        assert chosen.candidate != "dense"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_dense_wins_everywhere(name: str, dynamic: bool, tuned: Tuned) -> None:
    tuned.dense_wins()
    model, backend = MODELS[name](), Packing(tune="fast", strict=True)
    fast = torch.compile(model, backend=backend, dynamic=dynamic)
    with torch.no_grad():
        for rows in (4, 64) if dynamic else (4,):
            agree(fast, model, torch.randn(rows, 64))
    report = backend.compiler.report
    weights = {
        f"{n}.weight".lstrip(".")
        for n, m in model.named_modules()
        if "weight" in vars(m).get("_parameters", {})
    }
    assert {node.weight for node in report.nodes} == weights
    for node in report.nodes:
        assert not node.packed
        assert node.packed_bytes == node.dense_bytes
        measured = ROWS if dynamic else (4,)
        parts = node.reason.removeprefix("dense is faster: ").split("; ")
        assert [part.split()[0] for part in parts] == [f"m={rows}" for rows in measured]
        assert all(" 1e+03 ms, " in part and part.endswith(" 2e+03 ms") for part in parts)
        assert node.chosen_by == "measured"
    assert "sparsecompile" not in report.after
    assert "cat" not in report.after
    assert "split" not in report.after
    assert "dense is faster: " in str(report)


def test_a_reason_names_only_the_m_that_a_graph_has(tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > LARGE)
    (node,) = sc.explain(MODELS["linear"](), torch.randn(64, 64), tune="fast").nodes
    assert node.reason.startswith("dense is faster: m=64 1e+03 ms, ")
    assert "m=1 " not in node.reason
    assert {t.rows: t.candidate for t in node.trials if t.chosen} == {64: "dense"}


def test_a_lead_within_the_noise_is_named(tuned: Tuned) -> None:
    tuned.seconds = lambda name, rows: 1.0 if name == "dense" else 0.9995
    (node,) = sc.explain(MODELS["linear"](), torch.randn(4, 64), tune="fast").nodes
    assert node.reason.startswith("nothing beats dense by more than the noise: m=4 1e+03 ms, ")
    assert node.reason.endswith(" 1e+03 +- 1 ms")


@pytest.mark.parametrize("name", MODELS)
def test_dense_wins_for_large_m(name: str, tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > LARGE)
    model, backend = MODELS[name](), Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (2, 3, 8, 9, 16, 17, 64, 65, 300, 513):
            agree(fast, model, torch.randn(rows, 64))
        agree(fast, model, torch.randn(2, 64) * 3)
    for node in nodes_of(backend):
        assert node.kernel is not None
        *packed, last = node.kernel.ranges
        assert last == "any m: dense"
        assert packed[-1].startswith(f"m <= {LARGE}: ")
        assert node.packed_bytes < node.dense_bytes
    assert len(backend.compiler.report.graph_reports) == 1


def test_dense_wins_for_small_m_and_between(tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows in (1, 16, 64))
    model, backend = Gate(), Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (2, 4, 8, 9, 16, 64, 65, 512):
            agree(fast, model, torch.randn(rows, 64))
    kernel = nodes_of(backend)[0].kernel
    assert kernel is not None
    ends = [part.partition(": ")[::2] for part in kernel.ranges]
    assert [end for end, what in ends if what == "dense"] == ["m <= 1", "m <= 64"]


@pytest.mark.parametrize("name", ["linear", "three parts", "two parts", "transposed"])
@pytest.mark.parametrize("rows", [8, 64])
def test_gradients_flow_through_every_range(name: str, rows: int, tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > LARGE)
    model = MODELS[name]().requires_grad_(False)
    biases = [p for n, p in model.named_parameters() if n.endswith("bias")]
    for bias in biases:
        bias.requires_grad_(True)
    backend = Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    fast(torch.randn(5, 64, requires_grad=True))

    def grads(f: Any) -> list[Tensor]:
        x = torch.linspace(-1, 1, rows * 64).view(rows, 64).requires_grad_(True)
        found = f(x)
        total = sum(y.square().sum() for y in ((found,) if isinstance(found, Tensor) else found))
        return list(torch.autograd.grad(total, [x, *biases]))

    for ours, theirs in zip(grads(fast), grads(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert all(node.packed for node in nodes_of(backend))


def test_a_weight_that_changes_changes_every_range(tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > LARGE)
    model, backend = Attention(), Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for scale in (1.0, 0.5):
            for part in model.parts:
                part.weight.mul_(scale)
            for rows in (4, 64):
                agree(fast, model, torch.randn(rows, 64))
        model.parts[0].weight.fill_(1.0)
        for rows in (4, 64):
            agree(fast, model, torch.randn(rows, 64))


def test_parts_of_which_there_are_too_many_are_packed(tuned: Tuned) -> None:
    tuned.dense_wins()

    class Many(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(sparse_(nn.Linear(64, 8)) for _ in range(5))

    model, backend = Many(), Packing(tune="fast")
    with torch.no_grad():
        agree(torch.compile(model, backend=backend), model, torch.randn(4, 64))
    assert all(node.packed for node in nodes_of(backend))


class Masked(nn.Linear):
    """The product of a weight and a mask."""

    def __init__(self) -> None:
        super().__init__(64, 32)
        self.register_buffer("mask", sc.NM(2, 4).prune(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def test_a_masked_weight_has_no_dense_one_at_hand(tuned: Tuned) -> None:
    tuned.dense_wins()
    model, backend = Masked(), Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (4, 64):
            agree(fast, model, torch.randn(rows, 64))
    (node,) = nodes_of(backend)
    assert node.packed


@pytest.mark.parametrize(
    "options",
    [
        {"prune": "2:4"},
        {"quantize": "int8-weight-only"},
        {"quantize": "int8"},
        {"prune": "2:4", "quantize": "int4[group=32]"},
    ],
)
def test_lossy_weights_never_get_the_dense_linear(options: dict[str, Any], tuned: Tuned) -> None:
    tuned.dense_wins()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).requires_grad_(False)
    fast, unmeasured = (
        torch.compile(model, backend=Packing(tune=tune, **options), dynamic=True)
        for tune in ("fast", "off")
    )
    for rows in (4, 64):
        x = torch.randn(rows, 64)
        torch.testing.assert_close(fast(x), unmeasured(x), rtol=1e-4, atol=1e-4)
    report = sc.explain(model, torch.randn(4, 64), tune="fast", **options)
    assert tuned.measured
    for node in report.nodes:
        assert node.kernel is not None
        assert not any("dense" in part.split() for part in node.kernel.ranges)
        assert not any(t.chosen for t in node.trials if t.candidate == "dense")
