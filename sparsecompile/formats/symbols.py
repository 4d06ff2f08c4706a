"""Symbols in which formats, templates and the cost model write their closed formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import sympy

n, k, slots, m = sympy.symbols("n k slots m", integer=True, nonnegative=True)
"""Out features, in features, stored values, rows of the activation."""


def evaluate(bits: sympy.Expr, shape: tuple[int, int], stored: int) -> int:
    """Value of an expression in `n`, `k` and `slots`, rounded up to an integer."""
    return ceil(_compiled(bits)(shape[0], shape[1], stored))


@lru_cache(maxsize=256)
def _compiled(bits: sympy.Expr) -> Callable[[int, int, int], float]:
    """The expression as a plain Python function: `subs` would cost milliseconds per weight."""
    compiled: Callable[[int, int, int], float] = sympy.lambdify((n, k, slots), bits, modules="math")
    return compiled


@dataclass(frozen=True)
class Cost:
    """What one call of a kernel has to do at least, as expressions in `m`.

    Attributes:
        nbytes: bytes moved from and to memory.
        operations: arithmetic operations, a multiply-add counting as two.
        kind: of operations, which machines do at different rates: `float32`, `bfloat16`, `int8`.
    """

    nbytes: sympy.Expr
    operations: sympy.Expr
    kind: str = "float32"

    def seconds(self, rows: int, bandwidth: float, rate: float) -> float:
        """The roofline: no call with this many rows can take less.

        Args:
            rows: m.
            bandwidth: bytes a second that memory delivers.
            rate: operations a second.
        """
        return max(self.moved(rows) / bandwidth, self.computed(rows) / rate)

    def moved(self, rows: int) -> int:
        """Bytes moved by a call with this many rows."""
        return int(self.nbytes.subs(m, rows))

    def computed(self, rows: int) -> float:
        """Operations of a call with this many rows."""
        return float(self.operations.subs(m, rows))
