"""A pass of your own: a linear times a number becomes a linear with a scaled weight.

The scaling then happens once, when the weight is packed, and the multiplication is gone. Run it
with `uv run examples/write_a_pass.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc


@dataclass(frozen=True)
class FoldScale(sc.Rule[float]):
    """`linear(x, w, b) * c -> linear(x, w * c, b * c)`, for a number c."""

    name: ClassVar[str] = "fold_scale"
    phase: ClassVar[sc.Phase] = sc.Phase.NORMALIZE
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)

    def patterns(self) -> Sequence[sc.Call]:
        """A product of which one factor is a linear."""
        linear = sc.Call(sc.LINEAR, ("x", "weight", "bias"), capture="linear")
        product = (operator.mul, torch.mul)
        return (sc.Call(product, ("input", "factor"), {"input": linear}, commutative=True),)

    def guard(self, match: sc.Match, edit: sc.Edit) -> float:
        """What is learnt here is handed to `replace`; a refusal shows up in the report."""
        if not isinstance(match["factor"], (int, float)):
            raise sc.Reject(f"the other factor is {match['factor']}, not a number")
        if len(match["linear"].users) > 1:
            raise sc.Reject("the linear's result is used without the factor too")
        edit.binding(match["weight"])
        return float(match["factor"])

    def replace(self, match: sc.Match, facts: float, edit: sc.Edit) -> None:
        """Products of weights and numbers are evaluated when the weight is packed."""
        node = match.node
        scaled = [
            None if part is None else edit.call(torch.mul, (part, facts), before=node)
            for part in (match["weight"], match["bias"])
        ]
        edit.replace(node, edit.call(F.linear, (match["x"], *scaled), before=node))
        edit.erase(match["linear"])


class Scaled(nn.Module):
    """Half a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)
        with torch.no_grad():
            self.inner.weight.mul_(sc.NM(2, 4).prune(self.inner.weight))

    def forward(self, x: Tensor) -> Tensor:
        """`inner(x) / 2`, spelled as a product."""
        return self.inner(x) * 0.5


def main() -> None:
    """Register the pass with a Compiler, compile, compare, look."""
    # Unmeasured: so small a linear would be faster dense, and there would be nothing to see.
    backend = sc.Compiler(tune="off")
    backend.register(FoldScale())  # or sc.register(FoldScale()) for every Compiler

    torch.manual_seed(0)
    model = Scaled().eval()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(8, 64)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))

    (graph,) = backend.report.graph_reports
    for rewrite in graph.rewrites:
        print(f"{rewrite.pass_name:14} {rewrite.node:10} {rewrite.reason or 'replaced'}")
    print(f"\n{graph.after}")
    print(backend.report)
    assert any(r.pass_name == "fold_scale" and not r.reason for r in graph.rewrites)
    assert backend.report.nodes[0].packed


if __name__ == "__main__":
    main()
