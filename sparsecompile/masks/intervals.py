"""Intervals: the keys of every query as one interval, and the tiles that these make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid


@dataclass(frozen=True)
class Intervals:
    """Query `i` attends to the keys `low[b, h, i] <= key < high[b, h, i]`; none where that is none.

    Attributes:
        low: `[batch or 1, heads or 1, q]` int32.
        high: likewise.
    """

    low: Tensor
    high: Tensor

    def __and__(self, other: Intervals) -> Intervals:
        """Where they overlap."""
        return Intervals(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))

    def tiles(self, grid: Grid) -> Tensor:
        """As `MaskPattern.tiles` has them; the grid's offsets do not count."""
        rows = grid.queries - grid.offset
        keys = grid.keys - grid.kv_offset
        low, high = self.low[..., rows], self.high[..., rows]
        first, last = keys[:, 0], keys[:, -1]
        full = (low.amax(-1)[..., None] <= first) & (last < high.amin(-1)[..., None])
        none = (last < low.amin(-1)[..., None]) | (high.amax(-1)[..., None] <= first)
        known = torch.where(full, FULL, PARTIAL)
        return torch.where(none, NONE, known).to(torch.int8)
