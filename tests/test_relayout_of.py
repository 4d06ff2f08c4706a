"""One layout for all graphs: of merged, shared, pruned, packed and copied weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from best_layouts import SECONDS, compiled, kernel, layouts_of, nodes, runs_dense, seconds
from linears import MODELS, Attention, Gate, Tied, agree
from packing import Packing, close, sparse_
from torch import Tensor, nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.weights.cache import PACK_CACHE


@pytest.fixture
def measured(tuned: Tuned) -> Tuned:
    tuned.seconds = seconds
    return tuned


def test_a_graph_that_serves_other_weights_too_is_switched_for_them(measured: Tuned) -> None:
    first, second = (MODELS["linear"]() for _ in range(2))
    backend = Packing(tune="full")

    @torch.no_grad()
    def run(model: nn.Module, x: Tensor) -> Tensor:
        return torch.compile(model, backend=backend, dynamic=False)(x)  # type: ignore[no-any-return]

    many, one = torch.randn(128, 64), torch.randn(1, 64)
    for model in (first, second):
        close(run(model, many), model(many))
    assert backend.compiler.report.graphs == 1
    close(run(second, one), second(one))
    assert "layout chosen again" in kernel(backend, 0).reason
    for model in (second, first):
        for x in (one, many):
            close(run(model, x), model(x))
        assert len(layouts_of(model.weight)) == 1


def test_a_weight_that_is_pruned_has_no_dense_one_beside_it(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, 128, {"strips": 9.0, "generic": 4.0, "dense": 5.0})
    tuned.seconds = seconds
    model = nn.Linear(64, 32).requires_grad_(False)
    fast, backend = compiled(model, prune="2:4")
    twin = nn.Linear(64, 32)
    twin.load_state_dict(model.state_dict())
    sparse_(twin)
    for rows in (128, 1, 128):
        agree(fast, twin, torch.randn(rows, 64))
    assert "sc_linear_batch" in kernel(backend, 0).ranges[0]
    assert not runs_dense(fast, torch.randn(128, 64))
    assert len(layouts_of(model.weight)) == 1


def test_what_the_model_holds_packed_is_held_in_the_new_layout(measured: Tuned) -> None:
    model = nn.Sequential(sparse_(nn.Linear(64, 32)))
    want = {rows: torch.randn(rows, 64) for rows in (128, 1)}
    results = {rows: model(x).detach() for rows, x in want.items()}
    sc.compress(model)
    fast, backend = compiled(model)
    for rows in (128, 1, 128):
        close(fast(want[rows]), results[rows])
    assert kernel(backend, 0).layout.startswith("strips")
    (layout,) = layouts_of(model[0].weight)
    home: Any = model[0].weight.stored._home
    assert home.layout is layout.data
    close(model(want[1]), results[1])


def test_graphs_for_other_targets_keep_their_layouts(measured: Tuned) -> None:
    model = MODELS["linear"]()
    portable, backend = compiled(model, target="cpu[portable]")
    fast, _ = compiled(model)
    many, one = torch.randn(128, 64), torch.randn(1, 64)
    agree(portable, model, many)
    agree(fast, model, one)
    agree(portable, model, many)
    assert "chosen again" not in kernel(backend, 0).reason
    assert len(layouts_of(model.weight)) == 2


def test_without_switches_all_graphs_compare_layouts_at_the_same_m(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs; where another moment decides otherwise there are two copies, and both count."""
    monkeypatch.setattr(CppCodegen, "switches", False)
    tuned.seconds = seconds
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    assert kernel(backend, 0).layout.startswith("strips")
    assert tuned.rows == [1, 128]
    tuned.record().clear()
    monkeypatch.setitem(SECONDS, 1, {"strips": 0.1, "generic": 0.01, "dense": 5.0})
    agree(fast, model, torch.randn(1, 64))
    agree(fast, model, torch.randn(128, 64))
    assert kernel(backend, 1).layout == "generic"
    sizes = [layout.data.numel() for layout in layouts_of(model.weight)]
    assert len(sizes) == 2
    assert backend.compiler.report.packed_bytes == sum(sizes)


def test_dense_copies_are_counted_after_a_switch_too(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, 128, {"strips": 9.0, "generic": 1.0, "dense": 0.5})
    tuned.seconds = seconds
    model = MODELS["linear"]()
    backend = Packing(tune="full", dense_copies=True)
    fast = torch.no_grad()(torch.compile(model, backend=backend, dynamic=True))
    agree(fast, model, torch.randn(7, 64))
    (node,) = nodes(backend, 0)
    (layout,) = layouts_of(model.weight)
    copy_bytes = node.packed_bytes - layout.data.numel()
    assert copy_bytes >= node.dense_bytes
    tuned.record().clear()
    monkeypatch.setitem(SECONDS, 1, {"strips": 4.0, "generic": 0.1, "dense": 5.0})
    for rows in (1, 7, 200):
        agree(fast, model, torch.randn(rows, 64))
    assert kernel(backend, 0).layout == kernel(backend, 1).layout == "generic"
    (layout,) = layouts_of(model.weight)
    assert nodes(backend, 0)[0].packed_bytes == layout.data.numel() + copy_bytes


def test_many_graphs_for_one_m_each(measured: Tuned) -> None:
    """A kernel has fewer ranges than a weight may have graphs."""
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    with torch._dynamo.config.patch(recompile_limit=100):
        for rows in (*range(128, 148), 1):
            agree(fast, model, torch.randn(rows, 64))
        agree(fast, model, torch.randn(130, 64))
    assert len({kernel(backend, graph).layout for graph in range(21)}) == 1
    assert len(layouts_of(model.weight)) == 1


@pytest.mark.parametrize("make", [Attention, Gate, Tied, MODELS["transposed"]])
def test_merged_fused_and_shared_linears(make: Callable[[], nn.Module], measured: Tuned) -> None:
    model = make()
    fast, backend = compiled(model)
    for rows in (128, 1, 128, 1):
        agree(fast, model, torch.randn(rows, 64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    for rows in (128, 1):
        agree(fast, model, torch.randn(rows, 64))
    for node in backend.compiler.report.nodes:
        assert node.kernel is not None
        assert node.kernel.layout.startswith("strips")
    packed = [p for p in model.parameters() if PACK_CACHE._memory(p).made]
    assert max(len(layouts_of(parameter)) for parameter in packed) == 1


def test_a_graph_keeps_its_layout_where_nothing_else_can_be_built(
    measured: Tuned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    lower = CppCodegen.lower

    def fails(codegen: CppCodegen, problems: Any, *args: Any) -> Any:
        if any(problem.layout for problem in problems):
            raise sc.BuildError("no space left")
        return lower(codegen, problems, *args)

    monkeypatch.setattr(CppCodegen, "lower", fails)
    for rows in (1, 128, 1):
        agree(fast, model, torch.randn(rows, 64))
    first, second = kernel(backend, 0), kernel(backend, 1)
    assert (first.layout, second.layout.split()[0]) == ("generic", "strips")
    assert "a layout of its own is kept, since there is no kernel for strips" in first.reason
    assert first.reason.endswith("no space left")
    assert "no space left" in caplog.text
    sizes = [layout.data.numel() for layout in layouts_of(model.weight)]
    assert len(sizes) == 2
    assert backend.compiler.report.packed_bytes == sum(sizes)


def test_an_explanation_changes_no_graph(measured: Tuned) -> None:
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    epoch = PACK_CACHE.epoch
    (node,) = sc.explain(model, torch.randn(1, 64), tune="full").nodes
    assert node.kernel is not None
    assert node.kernel.layout.startswith("strips")
    assert PACK_CACHE.epoch == epoch
    assert kernel(backend, 0).layout == "generic"
    agree(fast, model, torch.randn(128, 64))
