"""A small model with zeros, and a backend that packs it and runs the graph as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.compiler import _run_eagerly


class Packing:
    """A Compiler whose packed graphs run as they are: everything but Inductor."""

    def __init__(self, **options: Any) -> None:
        self.compiler = sc.Compiler(**options)

    def __call__(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        return self.compiler.compile(gm, inputs, _run_eagerly)

    @property
    def packed(self) -> list[str]:
        nodes = self.compiler.report.nodes
        return [node.weight for node in nodes if node.packed and node.has_weight]

    def reason(self, weight: str) -> str:
        (node,) = [n for n in self.compiler.report.nodes if n.weight == weight and not n.packed]
        return node.reason


def sparse_(linear: nn.Linear, structure: sc.Structure | None = None) -> nn.Linear:
    """Prune a linear in place to 2:4."""
    with torch.no_grad():
        linear.weight.mul_((structure or sc.NM(2, 4)).prune(linear.weight))
    return linear


class MLP(nn.Module):
    """Two linears with an activation in between, 2:4."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.up, self.down = sparse_(nn.Linear(width, 64)), sparse_(nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


def settle() -> None:
    """Wait for looks that run beside the calls."""
    for thread in threading.enumerate():
        if thread.name == "sparsecompile-look":
            thread.join()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
