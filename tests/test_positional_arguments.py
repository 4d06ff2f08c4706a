"""`positional_arguments`: weights and what is done to them, passed by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsecompile import NM, Compiler, Reject, packed_linears
from sparsecompile.graph.weight_view import WeightView
from sparsecompile.testing import captured, check_passes


@pytest.mark.parametrize(
    "use",
    [
        lambda x, w: F.linear(input=x, weight=w),
        lambda x, w: F.linear(x, bias=None, weight=w),
        lambda x, w: torch.matmul(input=x, other=w),
        lambda x, w: x @ torch.transpose(input=w, dim0=0, dim1=1),
        lambda x, w: F.linear(x, torch.mul(w, other=w)),
        lambda x, w: F.linear(x, w.mul(other=w)),
        lambda x, w: F.linear(x, torch.cat(tensors=[w, w])),
    ],
)
def test_weights_that_are_passed_by_name_are_packed(use: Callable[..., Any]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.randn(16, 16)
            self.weight = nn.Parameter(weight * NM(2, 4).prune(weight), requires_grad=False)

        def forward(self, x: torch.Tensor) -> Any:
            return use(x, self.weight)

    with torch.no_grad():
        edit = check_passes(Compiler().passes, *captured(Model(), torch.randn(4, 16)))
    assert len(list(packed_linears(edit))) == 1


def test_a_weight_s_function_with_a_tensor_s_name_that_has_no_place_is_refused() -> None:
    """`out` has none."""
    weight = nn.Parameter(torch.randn(16, 16), requires_grad=False)
    graph = torch.fx.Graph()
    x, w, out = map(graph.placeholder, ("x", "w", "out"))
    graph.output(
        graph.call_function(F.linear, (x, graph.call_function(torch.t, (w,), {"out": out})))
    )
    gm = torch.fx.GraphModule(nn.Module(), graph)
    for node, value in zip((x, w, out), (torch.randn(4, 16), weight, weight), strict=True):
        node.meta["example_value"] = value
    view = WeightView(gm, (torch.randn(4, 16), weight, weight), grad=False)
    (linear,) = (node for node in graph.nodes if node.target is F.linear)
    with pytest.raises(Reject, match="the weight is computed in the graph by t"):
        view.binding(linear.args[1])
