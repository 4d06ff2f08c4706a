"""Kernels and the dense linear, chosen by measurements that are made up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linears import LARGE, MODELS, Attention, Gate, agree, nodes_of
from packing import Packing, sparse_
from torch import Tensor, nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.kernels.problem import ROWS


def without_comments(code: str) -> str:
    """Code of a graph, but not where it comes from: the path of these tests may hold any word."""
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("#"))


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
        assert {t.rows for t in node.trials} == {4}
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
    code = without_comments(report.after)
    assert not any(name in code for name in ("sparsecompile", "cat", "split"))
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


def test_what_would_win_with_another_layout_is_named(tuned: Tuned) -> None:
    def seconds(name: str, rows: int) -> float:
        if name.startswith("generic"):
            return 2.0 if rows == 1 else 0.5
        return 1.0 if name == "dense" else {1: 0.1}.get(rows, 2.0)

    tuned.seconds = seconds
    model, backend = MODELS["linear"](), Packing(tune="full")
    fast = torch.compile(model, backend=backend, dynamic=False)
    with torch.no_grad():
        for rows in (1, 128):
            agree(fast, model, torch.randn(rows, 64))
    packed, node = backend.compiler.report.nodes
    assert packed.packed
    assert not node.packed
    assert node.reason.startswith(
        "what beats dense reads another layout than the best for all m of the weight: m=128 1e+03 "
    )
    assert "generic batch 500 +- 1 ms" in node.reason


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


class Many(Attention):
    """More parts than the op takes dense weights."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(sparse_(nn.Linear(64, 8)) for _ in range(5))


def test_dense_serves_many_parts_for_every_m_or_for_none(tuned: Tuned) -> None:
    tuned.dense_wins()
    model, backend = Many(), Packing(tune="fast")
    with torch.no_grad():
        agree(torch.compile(model, backend=backend), model, torch.randn(4, 64))
    assert not backend.packed
    assert "cat" not in without_comments(backend.compiler.report.after)
    tuned.dense_wins(lambda rows: rows > LARGE)
    backend = Packing(tune="fast")
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (4, 64):
            agree(fast, model, torch.randn(rows, 64))
    for node in nodes_of(backend):
        assert node.kernel is not None
        assert not any("dense" in part for part in node.kernel.ranges)


@pytest.mark.parametrize(
    "options",
    [
        {"quantize": "int8-weight-only"},
        {"quantize": "int8"},
        {"prune": "2:4", "quantize": "int4[group=32]"},
    ],
)
def test_rounded_weights_never_get_the_dense_linear(options: dict[str, Any], tuned: Tuned) -> None:
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
