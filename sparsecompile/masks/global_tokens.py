"""`global(g)`: the first g tokens attend to all and are attended to by all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.pattern import OPTION
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Global(IntervalPattern):
    """`kv < tokens` or `q < tokens`; Longformer's mask is `around(w) + global(g)`.

    Beltagy et al. (arXiv 2004.05150).
    """

    tokens: int

    family = "global"

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            OptionError: it is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Columns and rows of the first tokens."""
        return (kv < self.tokens) | (q < self.tokens)

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """All keys of the first queries, the first keys of others."""
        return None, torch.where(q < self.tokens, torch.iinfo(torch.int64).max // 2, self.tokens)

    def check(self, grid: Grid) -> None:
        """Return if there are so many keys.

        Raises:
            OptionError: there are fewer.
        """
        there = grid.kv + grid.kv_offset
        if self.tokens > there:
            raise OptionError(
                OPTION, f"{self} names {self.tokens} tokens, there are {there}; name at most those"
            )


COMPONENTS = (Global(16),)
