"""IntervalMask: a pattern of intervals that are given, as a recognised mask's are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecompile.masks.grid import Grid
from sparsecompile.masks.intervals import Intervals
from sparsecompile.masks.pattern import MaskPattern


@dataclass(frozen=True, eq=False)
class IntervalMask(MaskPattern):
    """`low[b, h, q] <= kv < high[b, h, q]`; it has no text, and its matrix no offsets."""

    given: Intervals

    family = "intervals"

    @property
    def name(self) -> str:
        """Only the size: `intervals[2x1x128]`."""
        return f"intervals[{'x'.join(map(str, self.given.low.shape))}]"

    @property
    def batch(self) -> int:
        """Of the intervals."""
        return max(self.given.low.shape[0], self.given.high.shape[0])

    @property
    def heads(self) -> int:
        """Of the intervals."""
        return max(self.given.low.shape[1], self.given.high.shape[1])

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Between the ends."""
        low, high = (
            end[b.clamp(max=end.shape[0] - 1), h.clamp(max=end.shape[1] - 1), q]
            for end in (self.given.low, self.given.high)
        )
        return (low <= kv) & (kv < high)

    def intervals(self, grid: Grid) -> Intervals:
        """Those that were given."""
        return self.given

    def tiles(self, grid: Grid) -> Tensor:
        """Those of the intervals."""
        return self.given.tiles(grid)
