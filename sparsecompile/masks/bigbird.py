"""`bigbird(window=3,global=2,random=3,block=64)`: blocks near, first and drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class BigBird(MaskPattern):
    """Of every block of queries the `window` nearest blocks of keys, the first, and drawn ones.

    The first `global` blocks attend to all. The drawn ones lie among the first `length` keys and
    are a function of the seed and the block of queries alone; some may be drawn twice. Zaheer et
    al. (arXiv 2007.14062).
    """

    window: int
    global_: int
    random: int
    block: int
    seed: int = 0
    length: int = 4096

    family = "bigbird"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            OptionError: one is below 1, or below 0 where nothing of a kind is possible.
        """
        check_positive(self, but=("window", "global_", "random", "seed"))

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the blocks that query and key are in."""
        row, column = q // self.block, kv // self.block
        kept = ((row - column).abs() <= (self.window - 1) // 2) & (self.window > 0)
        kept = kept | (column < self.global_) | (row < self.global_)
        for place in range(self.random):
            kept = kept | (column == self._drawn(row, place))
        return kept

    def tiles(self, grid: Grid) -> Tensor:
        """From one place of every block in them."""
        q, kv = (_corners(tiles, self.block) for tiles in (grid.queries, grid.keys))
        zero = torch.zeros((), dtype=torch.int64)
        kept = self.keeps(zero, zero, q[:, :, None, None], kv)
        all_, any_ = kept.all(3).all(1), kept.any(3).any(1)
        known = torch.where(all_, FULL, torch.where(any_, PARTIAL, NONE))
        return known.to(torch.int8)[None, None]

    def _drawn(self, row: Tensor, place: int) -> Tensor:
        """A block for each row of blocks: lowbias32, a hash of 32 bits."""
        mixed = row * self.random + place + self.seed * 0x9E3779B9
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            mixed = mixed & 0xFFFFFFFF
            mixed = (mixed ^ (mixed >> shift)) * factor
        return mixed % -(-self.length // self.block)


def _corners(tiles: Tensor, block: int) -> Tensor:
    """Positions such that every block of a tile has one: `[tiles, positions]`."""
    first, last = tiles[:, :1], tiles[:, -1:]
    steps = torch.arange(-(-tiles.shape[1] // block) + 1) * block
    return (first // block * block + steps).clamp(min=first).minimum(last)


COMPONENTS = (BigBird(3, 2, 3, 64),)
