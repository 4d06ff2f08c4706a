"""`padding(keep)`: keys that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid
from sparsecompile.masks.pattern import OPTION, MaskPattern
from sparsecompile.masks.runs import runs_of, runs_text


@dataclass(frozen=True, eq=False)
class Padding(MaskPattern):
    """`keep[b, kv]`.

    Attributes:
        keep: `[batch or 1, positions]` bool.
    """

    keep: Tensor

    family = "padding"

    @classmethod
    def of_lengths(cls, lengths: Tensor, positions: int) -> Padding:
        """The first so many keys of each entry: `[batch]` integers."""
        return cls(torch.arange(positions) < lengths[:, None])

    @property
    def name(self) -> str:
        """`padding(1*5,0*3)`: runs, entries of the batch between semicolons."""
        return f"padding({runs_text(self.keep)})"

    @classmethod
    def parse(cls, parameters: str, read: Callable[[str], MaskPattern]) -> Padding:
        """From runs.

        Raises:
            ValueError: it is none.
        """
        return cls(runs_of(parameters).bool())

    @property
    def batch(self) -> int:
        """Of the table."""
        return self.keep.shape[0]

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of every query the same."""
        return self.keep[b.clamp(max=self.batch - 1), kv]

    def tiles(self, grid: Grid) -> Tensor:
        """By the keys of a column of tiles."""
        keys = self.keep[:, grid.keys]
        known = torch.where(keys.all(2), FULL, torch.where(keys.any(2), PARTIAL, NONE))
        return known.to(torch.int8)[:, None, None].expand(-1, 1, len(grid.queries), -1)

    def check(self, grid: Grid) -> None:
        """Return if the table has every key.

        Raises:
            OptionError: some are missing.
        """
        if self.keep.shape[1] < grid.kv_offset + grid.kv:
            raise OptionError(
                OPTION,
                f"padding: {self.keep.shape[1]} keys, the matrix has positions up to "
                f"{grid.kv_offset + grid.kv - 1}; say of each whether it counts",
            )


COMPONENTS = (Padding(torch.ones(1, 1, dtype=torch.bool)),)
