"""Symbols in which formats, templates and costs write their closed formulas."""

from __future__ import annotations

from collections.abc import Callable
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
