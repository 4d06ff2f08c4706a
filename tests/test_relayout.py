"""One layout of a weight for all graphs that read it, by measurements that are made up."""

from __future__ import annotations

import gc
import logging
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from best_layouts import SECONDS, compiled, kernel, layouts_of, nodes, runs_dense, seconds
from linears import MODELS, Gate, agree
from packing import Packing, close, sparse_
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.weights.cache import PACK_CACHE


@pytest.fixture
def measured(tuned: Tuned) -> Tuned:
    tuned.seconds = seconds
    return tuned


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, str], Kernel]:
    """What was made to serve each call of a graph, by its number and a layout."""
    found: dict[tuple[int, str], Kernel] = {}
    serve = CppCodegen.serve

    def watched(codegen: CppCodegen, call: int, kernel: Kernel) -> None:
        found[call, kernel.layout] = kernel
        serve(codegen, call, kernel)

    monkeypatch.setattr(CppCodegen, "serve", watched)
    return found


def test_a_graph_for_one_m_gets_the_layout_that_is_best_there(measured: Tuned) -> None:
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    assert kernel(backend, 0).layout == "generic"
    assert measured.rows == [128]
    (node,) = backend.compiler.report.nodes
    assert {t.rows for t in node.trials} == {128}
    assert node.chosen_by == "measured"


def test_another_m_chooses_again_for_both(
    measured: Tuned, served: dict[tuple[int, str], Kernel], caplog: pytest.LogCaptureFixture
) -> None:
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    many, one = torch.randn(128, 64), torch.randn(1, 64)
    agree(fast, model, many)
    before = set(served)
    with caplog.at_level(logging.INFO, "sparsecompile"):
        agree(fast, model, one)
    assert "weight: layout chosen again for m = 1 and 128: strips" in caplog.text
    agree(fast, model, many)
    assert measured.rows == [128, 1]
    (layout,) = layouts_of(model.weight)
    for graph, rows in ((0, 128), (1, 1)):
        (node,) = nodes(backend, graph)
        chosen = kernel(backend, graph)
        assert chosen.layout.startswith("strips")
        assert node.chosen_by == chosen.reason
        assert node.chosen_by.endswith("; layout chosen again for m = 1 and 128")
        assert node.packed_bytes == layout.data.numel()
        (trial,) = (t for t in node.trials if t.chosen)
        assert trial.rows == rows
        assert trial.candidate.startswith("strips")
        assert trial.candidate.split()[-1] in chosen.ranges[0]
    # What graphs call runs what the report names.
    (call,) = {call for call, name in before if name == "generic"}
    first = served[call, kernel(backend, 0).layout]
    assert tuple(map(str, first.ranges)) == kernel(backend, 0).ranges
    (call,) = {call for call, _ in served} - {call}
    second = served[call, kernel(backend, 1).layout]
    assert tuple(map(str, second.ranges)) == kernel(backend, 1).ranges
    report = backend.compiler.report
    assert report.packed_bytes == layout.data.numel()
    assert {first.sources[0].name, second.sources[0].name} <= report.sources.keys()


def test_layers_that_are_alike_are_decided_once(
    measured: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[int] = []
    lower = CppCodegen.lower

    def watched(codegen: CppCodegen, problems: dict[Any, Any], *args: Any) -> Any:
        decided.append(len(problems))
        return lower(codegen, problems, *args)

    monkeypatch.setattr(CppCodegen, "lower", watched)
    layers = (sparse_(nn.Linear(64, 64)) for _ in range(3))
    model = nn.Sequential(*(each for layer in layers for each in (layer, nn.ReLU())))
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    assert decided == [1]
    agree(fast, model, torch.randn(1, 64))
    assert decided == [1, 1, 1]
    for graph in (0, 1):
        found = [node.kernel for node in nodes(backend, graph)]
        assert [k.layout.split()[0] for k in found if k is not None] == ["strips"] * 3
        assert all("chosen again" in node.chosen_by for node in nodes(backend, graph))
    agree(fast, model, torch.randn(128, 64))


def test_the_old_layout_is_freed_at_once(measured: Tuned) -> None:
    model = MODELS["linear"]()
    fast, _ = compiled(model)
    fast(torch.randn(128, 64))
    (layout,) = layouts_of(model.weight)
    old = weakref.ref(layout.data)
    del layout
    fast(torch.randn(1, 64))
    gc.collect()
    assert old() is None


def test_dense_serves_an_earlier_graph_where_it_is_faster_now(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, 128, {"strips": 9.0, "generic": 4.0, "dense": 5.0})
    tuned.seconds = seconds
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    many = torch.randn(128, 64)
    agree(fast, model, many)
    assert not runs_dense(fast, many)
    agree(fast, model, torch.randn(1, 64))
    assert kernel(backend, 0).ranges == ("any m: dense",)
    assert runs_dense(fast, many)
    assert not runs_dense(fast, torch.randn(1, 64))
    agree(fast, model, many)
    assert len(layouts_of(model.weight)) == 1
    (trial,) = (t for t in nodes(backend, 0)[0].trials if t.chosen)
    assert (trial.rows, trial.candidate) == (128, "dense")


def test_an_earlier_graph_that_runs_dense_stays_dense(tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > 1)
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(128, 64))
    agree(fast, model, torch.randn(1, 64))
    (first,), (second,) = nodes(backend, 0), nodes(backend, 1)
    assert not first.packed
    assert second.packed
    assert "chosen again" not in second.chosen_by


def test_a_layout_that_stays_the_best_is_kept(measured: Tuned) -> None:
    model = MODELS["linear"]()
    fast, backend = compiled(model)
    agree(fast, model, torch.randn(1, 64))
    (layout,) = layouts_of(model.weight)
    epoch = PACK_CACHE.epoch
    agree(fast, model, torch.randn(128, 64))
    assert measured.rows == [1, 128]
    assert layouts_of(model.weight) == [layout]
    assert PACK_CACHE.epoch == epoch
    assert kernel(backend, 0).layout == kernel(backend, 1).layout
    assert not any("chosen again" in node.chosen_by for node in backend.compiler.report.nodes)


def test_any_m_chooses_again(measured: Tuned) -> None:
    model = MODELS["linear"]()
    backend = Packing(tune="full")
    fast = torch.no_grad()(torch.compile(model, backend=backend))
    for rows in (128, 64, 1, 7, 128):
        agree(fast, model, torch.randn(rows, 64))
    assert backend.compiler.report.graphs == 3
    assert {kernel(backend, graph).layout for graph in range(3)} == {kernel(backend, 2).layout}
    assert kernel(backend, 1).reason.endswith("; layout chosen again for any m")
    assert len(layouts_of(model.weight)) == 1


def test_an_earlier_graph_may_run_while_it_is_switched(measured: Tuned) -> None:
    model = Gate()
    fast, backend = compiled(model)
    x = torch.randn(128, 64)
    agree(fast, model, x)
    want, running = fast(x), True

    def run() -> int:
        count = 0
        while running:
            close(fast(x), want)
            count += 1
        return count

    with ThreadPoolExecutor() as pool:
        calls = pool.submit(run)
        try:
            agree(fast, model, torch.randn(1, 64))
        finally:
            running = False
        assert calls.result() > 0
    assert "chosen again" in nodes(backend, 0)[0].chosen_by


def test_through_inductor(measured: Tuned) -> None:
    """As a user compiles: for many rows, then one, then any number of them."""
    model = MODELS["residual"]()
    backend = sc.Compiler(tune="full")
    fast = torch.no_grad()(torch.compile(model, backend=backend))
    for rows in (128, 1, 128, 7, 1, 300, 128):
        agree(fast, model, torch.randn(rows, 64))
    with torch.no_grad():
        model.up.weight.mul_(2)
    for rows in (128, 1, 7):
        agree(fast, model, torch.randn(rows, 64))
    assert backend.report.graphs == 3
    for weight in (model.up.weight, model.down.weight):
        assert len(layouts_of(weight)) == 1
