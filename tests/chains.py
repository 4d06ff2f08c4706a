"""Linears one after the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from packing import Packing
from torch import Tensor, nn

from sparsecompile.testing import assert_no_worse


class Chain(nn.Module):
    """Linears one after the other."""

    def __init__(self, *sizes: int, biases: Sequence[bool] = ()) -> None:
        super().__init__()
        biases = biases or (True,) * len(sizes)
        pairs = zip(sizes, sizes[1:], biases, strict=False)
        self.layers = nn.ModuleList(nn.Linear(k, n, bias=bias) for k, n, bias in pairs)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def check(model: nn.Module, x: Tensor, backend: Any) -> Any:
    """As exact as eager, compiled."""
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        assert_no_worse(fast(x), model(x), exact)
    return fast


def reasons(backend: Packing) -> list[str]:
    graphs = backend.compiler.report.graph_reports
    return [r.reason for g in graphs for r in g.rewrites if r.pass_name == "fuse_low_rank"]
