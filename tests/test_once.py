"""What a compilation does once and not again: it would take longer than all else in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from packing import MLP, Packing, sparse_
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

import sparsecompile as sc
from sparsecompile.codegen.cpp.template import CppTemplate
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry, default_registry


def test_code_is_generated_for_the_report_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generated: list[Graph] = []
    generate = Graph.python_code

    def noted(graph: Graph, *args: Any, **kwargs: Any) -> Any:
        generated.append(graph)
        return generate(graph, *args, **kwargs)

    compiler, counts = sc.Compiler(tune="off"), []

    def backend(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        with monkeypatch.context() as patch:
            patch.setattr(Graph, "python_code", noted)
            compiler.compile(module, inputs, lambda *_: lambda *args: args)
        counts.append(len(generated))
        return module

    with torch.no_grad():
        torch.compile(MLP(), backend=backend)(torch.randn(2, 32))
    assert [node.packed for node in compiler.report.nodes] == [True, True]
    assert counts == [2]
    assert "packed_0" in compiler.report.after
    assert "packed_0" not in compiler.report.before


def test_a_source_is_rendered_once_for_all_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: Counter[tuple[Any, ...]] = Counter()
    render = CppTemplate.render

    def noted(template: Any, spec: Any, schedule: Any, target: Any, registry: Any) -> Any:
        rendered[type(template), spec, schedule] += 1
        return render(template, spec, schedule, target, registry)

    monkeypatch.setattr(CppTemplate, "render", noted)
    model, backend = MLP(), Packing(tune="off", registry=default_registry().copy())
    fast = torch.compile(model, backend=backend, dynamic=False)
    with torch.no_grad():
        for rows in (1, 2):
            fast(torch.randn(rows, 32))
    assert backend.compiler.report.graphs == 2
    assert rendered
    assert set(rendered.values()) == {1}


def test_what_is_registered_later_is_seen() -> None:
    everything = default_registry()
    templates = everything.all(Template)
    others = (c for c in everything._components.values() if c not in templates)
    registry = Registry(*others)
    linear = sparse_(nn.Linear(32, 64))

    def packed(x: Tensor) -> list[bool]:
        torch._dynamo.reset()
        backend = Packing(tune="off", registry=registry)
        torch.compile(linear, backend=backend)(x)
        return [node.packed for node in backend.compiler.report.nodes]

    with torch.no_grad():
        assert packed(torch.randn(2, 32)) == [False]
        registry.register(*templates)
        assert packed(torch.randn(2, 32)) == [True]
