"""Cost: what a kernel has to do at least, as expressions in a symbolic `m`."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from sparsecompile.formats.symbols import m


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
