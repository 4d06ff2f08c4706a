"""Linears under autocast or torch.func in a part of the graph stay dense; those around do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from packing import Packing, close, sparse_
from torch import Tensor, func, nn
from torch.amp.autocast_mode import _enter_autocast
from torch.fx import Graph, GraphModule

from sparsecompile.graph.transformed_regions import scopes

Inner = Callable[[Tensor], Tensor]


def autocast(inner: Inner, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return inner(x).float()


def no_autocast(inner: Inner, x: Tensor) -> Tensor:
    """As the rotations of many language models."""
    with torch.autocast("cpu", enabled=False):
        return inner(x)


def nested(inner: Inner, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return no_autocast(lambda y: y, inner(x)).float()


SCOPES: dict[str, Callable[[Inner, Tensor], Tensor]] = {
    "autocast": autocast,
    "nested": nested,
    "vmap": lambda inner, x: func.vmap(inner)(x),
    "grad": lambda inner, x: func.grad(lambda y: inner(y).square().sum())(x),
    "jvp": lambda inner, x: func.jvp(inner, (x,), (x,))[1],
}


class Parts(nn.Module):
    """A linear in a scope between two others."""

    def __init__(self, scope: Callable[[Inner, Tensor], Tensor]) -> None:
        super().__init__()
        self.scope = scope
        for name in ("first", "inner", "last"):
            setattr(self, name, sparse_(nn.Linear(32, 32)).requires_grad_(False))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.scope(self.inner, self.first(x).relu()).relu())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", SCOPES)
def test_linears_around_a_scope_are_packed(name: str) -> None:
    model, backend, x = Parts(SCOPES[name]), Packing(), torch.randn(4, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
    assert sorted(backend.packed) == ["first.weight", "last.weight"]
    reason = "autocast is on" if name in ("autocast", "nested") else "torch.func transforms it"
    assert reason in backend.reason("inner.weight")


def test_where_autocast_is_switched_off_linears_are_what_they_are() -> None:
    model, backend, x = Parts(no_autocast), Packing(), torch.randn(4, 32)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x), model(x))
    assert sorted(backend.packed) == ["first.weight", "inner.weight", "last.weight"]


def test_a_weight_with_a_reader_in_a_scope_stays_dense() -> None:
    model, backend, x = Parts(SCOPES["vmap"]), Packing(), torch.randn(4, 32)
    model.last = model.inner
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x), model(x))
    assert backend.packed == ["first.weight"]


def test_a_step_in_a_scope_is_not_fused() -> None:
    linear, backend = sparse_(nn.Linear(32, 32)).requires_grad_(False), Packing()

    def added(x: Tensor, rows: Tensor) -> Tensor:
        y = linear(x)
        return func.vmap(lambda row: y + row)(rows)

    x, rows = torch.randn(4, 32), torch.randn(3, 4, 32)
    with torch.no_grad():
        close(torch.compile(added, backend=backend)(x, rows), added(x, rows))
    (graph,) = backend.compiler.report.graph_reports
    (rewrite,) = [r for r in graph.rewrites if r.pass_name == "fuse_epilogue"]
    assert "torch.func transforms it" in rewrite.reason
    assert len(backend.packed) == 1


def test_a_scope_that_is_never_left_lasts_to_the_end() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    graph.call_function(_enter_autocast, ("cpu", None, False, None))
    begin = graph.call_function(_enter_autocast, ("cpu", torch.bfloat16, True, None))
    end = graph.output(x)
    (scope,) = scopes(GraphModule(nn.Module(), graph))
    assert (scope.begin, scope.end) == (begin, end)
