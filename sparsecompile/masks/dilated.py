"""`dilated(window=w,step=d)`: w keys on each side, each d positions from the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.around import Around
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.lines import crossed
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Dilated(MaskPattern):
    """`|q - kv| <= window * step`, of which every `step`-th: Longformer's dilated window.

    Beltagy et al. (arXiv 2004.05150).
    """

    window: int
    step: int

    family = "dilated"

    def __post_init__(self) -> None:
        """Check window and step.

        Raises:
            OptionError: one is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the distance."""
        return ((q - kv).abs() <= self.window * self.step) & ((q - kv) % self.step == 0)

    def tiles(self, grid: Grid) -> Tensor:
        """Of the window those that one of its diagonals crosses."""
        return torch.minimum(Around(self.window * self.step).tiles(grid), crossed(grid, self.step))


COMPONENTS = (Dilated(8, 4),)
