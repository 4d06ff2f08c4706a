"""Sample: a few rows of a weight, for detectors."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy

LEAST_COLUMNS, _LEAST_KEPT = 16, 6
"""Of a group, and how many are not zero: fewer values are on some grid by chance."""
_ROWS, _VALUES = 8, 512


class Sample:
    """A few rows of a weight, evenly spaced.

    Args:
        weight: the weight.

    Raises:
        Reject: it is too small to tell, or holds what is no number.
    """

    def __init__(self, weight: Occupancy) -> None:
        n, k = weight.shape
        if not n or k < LEAST_COLUMNS:
            raise Reject(f"{n} rows of {k} columns: {LEAST_COLUMNS} columns are needed to tell")
        self.places = torch.linspace(0, n - 1, min(n, _ROWS)).round().long()
        self.rows = weight.weight[self.places].contiguous()
        """`[r, k]`."""
        if not bool(self.rows.isfinite().all()):
            raise Reject("holds what is not finite")

    @cached_property
    def window(self) -> float:
        """How many values differ in 32 columns, on average."""
        columns = min(32, self.rows.shape[1])
        ordered = self.rows[:, : self.rows.shape[1] // columns * columns].reshape(-1, columns)
        ordered = ordered.float().sort(1).values
        return 1 + float((ordered.diff(dim=1) != 0).sum(1).float().mean())

    @cached_property
    def values(self) -> tuple[int, int]:
        """How many values differ in all rows, and at most in one."""
        ordered = self.rows.float().sort(1).values
        return self.rows.unique().numel(), 1 + int((ordered.diff(dim=1) != 0).sum(1).max())

    def groups(self, size: int | None) -> Tensor:
        """Some groups of so many columns, None for whole rows: `[g, columns]`, two at least.

        Raises:
            Reject: rows do not have as many, or so few are not zero that any would be on a grid.
        """
        k = self.rows.shape[1]
        whole = k // (size or k)
        if not whole:
            raise Reject(f"rows of {k} columns have no group of {size}")
        found = self.rows[:, : whole * (size or k)].reshape(-1, size or k)
        count = min(len(found), max(2, _VALUES // found.shape[1]))
        found = found[torch.linspace(0, len(found) - 1, count).round().long()]
        kept = int(found.count_nonzero()) / count
        if kept < _LEAST_KEPT:
            raise Reject(f"groups of {size or k} columns hold {kept:.1f} values that are not zero")
        return found
