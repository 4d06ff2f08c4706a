"""The laws of passes, and the models that they are tested with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional as F

from sparsecompile.compiler import Compiler
from sparsecompile.formats.structure import Structure
from sparsecompile.graph.copy import copy_graph
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.rule import Pass, run_passes
from sparsecompile.graph.weight_view import WeightView
from sparsecompile.registry import default_registry
from sparsecompile.testing.laws import draw_mask


def _clone(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@st.composite
def small_models(draw: st.DrawFn) -> tuple[torch.nn.Module, Tensor]:
    """Random small modules with pruned and dense linears, and an input for them.

    Chains, shared inputs, residuals, gates, activations, 1x1 Conv1D, dropout in evaluation mode;
    every structure of the default registry that can prune.
    """
    width = 16
    torch.manual_seed(draw(st.integers(0, 2**16)))
    structures = [s for s in default_registry().all(Structure) if s.family != "dense"]

    def linear() -> torch.nn.Linear:
        layer = torch.nn.Linear(width, width, bias=draw(st.booleans()))
        if draw(st.integers(0, 3)):
            structure = draw(st.sampled_from(structures))
            layer.weight.data.mul_(draw_mask(draw, structure, layer.weight.data))
        return layer

    kinds = draw(st.lists(st.sampled_from(sorted(_BLOCKS)), min_size=1, max_size=4))
    linears = [[linear() for _ in range(3)] for _ in kinds]

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(map(torch.nn.ModuleList, linears))

        def forward(self, x: Tensor) -> Tensor:
            for kind, (a, b, c) in zip(kinds, linears, strict=True):
                x = _BLOCKS[kind](x, a, b, c)
            return x

    shape = draw(st.sampled_from(((width,), (1, width), (3, width), (2, 3, width))))
    return Small().eval().requires_grad_(False), torch.randn(shape)


_Block = Callable[[Tensor, torch.nn.Linear, torch.nn.Linear, torch.nn.Linear], Tensor]
_BLOCKS: dict[str, _Block] = {
    "mlp": lambda x, a, b, c: x + F.dropout(b(F.gelu(a(x))), 0.1, False),
    "gated": lambda x, a, b, c: c(F.silu(a(x)) * b(x)) + x,
    "attention": lambda x, a, b, c: torch.softmax(a(x) * b(x), -1) * c(x),
    "gate": lambda x, a, b, c: torch.sigmoid(a(x)) * x + torch.tanh(b(x)),
    "matmul": lambda x, a, b, c: F.relu(torch.matmul(x, a.weight.t())) @ b.weight,
    "conv1d": lambda x, a, b, c: torch.addmm(
        c.weight[0].clone(), x.reshape(-1, x.shape[-1]), a.weight
    ).reshape(x.shape),
    "shared": lambda x, a, b, c: a(a(x)) + F.gelu(a(x), approximate="tanh"),
    "in_place": lambda x, a, b, c: F.relu(a(x), inplace=True).add_(b(x)),
}


def captured(model: Callable[..., Any], *args: Any) -> tuple[GraphModule, Sequence[Any]]:
    """The first graph that Dynamo makes of a model, with the values of its placeholders.

    Args:
        model: a module or function.
        args: its inputs.
    """
    graphs: list[tuple[GraphModule, Sequence[Any]]] = []

    def keep(gm: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        graphs.append((gm, list(inputs)))
        forward: Callable[..., Any] = gm.forward
        return forward

    torch._dynamo.reset()
    torch.compile(model, backend=keep)(*args)
    return graphs[0]


def apply_passes(
    passes: Sequence[Pass], gm: GraphModule, inputs: Sequence[Any], **options: Any
) -> Edit:
    """Run passes on a copy of a graph.

    Args:
        passes: in the order to run.
        gm: the graph.
        inputs: values of its placeholders.
        options: of the Compiler whose formats count.
    """
    module = copy_graph(gm)
    weights = WeightView(module, inputs, grad=torch.is_grad_enabled())
    compiler = Compiler(**options)
    edit = Edit(module, weights, compiler.formats, compiler.device)
    run_passes(passes, edit)
    return edit


def check_passes(
    passes: Sequence[Pass], gm: GraphModule, inputs: Sequence[Any], **options: Any
) -> Edit:
    """Passes keep what a graph computes, and run twice they change nothing more.

    Args:
        passes: in the order to run.
        gm: the graph.
        inputs: values of its placeholders.
        options: of the Compiler whose formats count.

    Raises:
        AssertionError: a law does not hold.
    """
    edit = apply_passes(passes, gm, inputs, **options)
    # Each run gets its own inputs: a graph may write into them.
    want, got = (graph.forward(*map(_clone, inputs)) for graph in (gm, edit.module))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    again = apply_passes(passes, edit.module, inputs, **options)
    assert str(again.module.graph) == str(edit.module.graph), "a second run changes the graph"
    return edit
