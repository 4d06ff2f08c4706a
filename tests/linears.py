"""Small models whose linears are packed in every way, and what a backend did to them."""

from __future__ import annotations

from typing import Any

from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc

LARGE = 16
"""The last m at which packed functions win where dense wins for large m."""


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


class Masked(nn.Linear):
    """The product of a weight and a mask."""

    def __init__(self) -> None:
        super().__init__(64, 32)
        self.register_buffer("mask", sc.NM(2, 4).prune(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def nodes_of(backend: Packing) -> tuple[sc.NodeReport, ...]:
    return backend.compiler.report.nodes


def agree(fast: Any, model: nn.Module, x: Tensor) -> None:
    found, expected = fast(x), model(x)
    assert type(found) is type(expected)
    for a, b in zip(
        *((y,) if isinstance(y, Tensor) else y for y in (found, expected)), strict=True
    ):
        close(a, b)
