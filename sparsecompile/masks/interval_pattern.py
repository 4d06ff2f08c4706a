"""IntervalPattern: patterns that keep one interval of keys of every query."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sparsecompile.masks.grid import Grid
from sparsecompile.masks.intervals import Intervals
from sparsecompile.masks.pattern import MaskPattern


class IntervalPattern(MaskPattern):
    """`low <= kv < high`, by the position of the query."""

    @abstractmethod
    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """`low` and `high`, positions of keys, where there is such an end.

        Args:
            q: positions of queries, `[q]` int64.
        """

    def intervals(self, grid: Grid) -> Intervals:
        """The ends, among the keys that there are: `[1, 1, q]`."""
        q = torch.arange(grid.offset, grid.offset + grid.q)
        low, high = (
            None if end is None else (end - grid.kv_offset).clamp(0, grid.kv)
            for end in self.ends(q)
        )
        low = torch.zeros_like(q) if low is None else low
        high = torch.full_like(q, grid.kv) if high is None else high
        return Intervals(low.to(torch.int32).view(1, 1, -1), high.to(torch.int32).view(1, 1, -1))

    def tiles(self, grid: Grid) -> Tensor:
        """Those of the intervals."""
        return self.intervals(grid).tiles(grid)
