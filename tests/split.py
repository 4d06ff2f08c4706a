"""Weights of whole blocks of zeros but for a few columns, which are dense."""

from __future__ import annotations

import copy
from typing import Any

import torch
from packing import Packing
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse


def blocks_and_columns(n: int, k: int, structure: sc.Structure | None = None) -> nn.Linear:
    """A linear of which a sum takes the fewest bytes."""
    linear = nn.Linear(k, n).requires_grad_(False)
    mask = (structure or sc.Block(16, 16)).prune(linear.weight, 0.8 if structure is None else None)
    mask[:, torch.arange(k // 32) * 32 + 5] = True
    linear.weight.mul_(mask)
    return linear


class Pair(nn.Module):
    """Two linears of such weights, with an activation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = blocks_and_columns(64, 96), blocks_and_columns(96, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


class Three(nn.Module):
    """Linears of one input; one is not taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = blocks_and_columns(64, 96), blocks_and_columns(48, 96)
        self.v = nn.Linear(96, 32).requires_grad_(False)
        self.v.weight.mul_(sc.Block(16, 16).prune(self.v.weight, 0.8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((F.silu(self.q(x)), self.k(x) * 2, self.v(x)), -1)


SUM = "outlier_columns: sum(block[16x16]/float, block[4x1]/float)"


def check(model: nn.Module, x: Tensor, backend: Packing, **options: Any) -> Any:
    """As exact as eager, compiled."""
    fast = torch.compile(model, backend=backend, **options)
    with torch.no_grad():
        found, eager = fast(x), model(x)
        assert_no_worse(found, eager, copy.deepcopy(model).double()(x.double()))
    return fast


def split_reasons(backend: Packing) -> list[str]:
    graphs = backend.compiler.report.graph_reports
    return [r.reason for g in graphs for r in g.rewrites if r.pass_name == "split_weights"]
