"""`strided(s)`: the last s keys and every s-th before, as of Sparse Transformers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.causal import Causal
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.lines import crossed
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.positive import check_positive
from sparsecompile.masks.window import Window


@dataclass(frozen=True, eq=False)
class Strided(MaskPattern):
    """`kv <= q`, and `q - kv < stride` or a multiple of it; Child et al. (arXiv 1904.10509)."""

    stride: int

    family = "strided"

    def __post_init__(self) -> None:
        """Check the stride.

        Raises:
            OptionError: it is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the distance."""
        return (kv <= q) & ((q - kv < self.stride) | ((q - kv) % self.stride == 0))

    def tiles(self, grid: Grid) -> Tensor:
        """Those of the window, and those that a diagonal crosses."""
        kept = torch.maximum(Window(self.stride).tiles(grid), crossed(grid, self.stride))
        return torch.minimum(Causal().tiles(grid), kept)


COMPONENTS = (Strided(128),)
