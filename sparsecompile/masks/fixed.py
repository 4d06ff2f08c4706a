"""`fixed(s)`: the query's chunk and the last keys of earlier ones, as of Sparse Transformers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.causal import Causal
from sparsecompile.masks.chunked import Chunked
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.lines import holding
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Fixed(MaskPattern):
    """`kv <= q`, in one chunk of `stride` or among the `last` keys of any chunk.

    Child et al. (arXiv 1904.10509).
    """

    stride: int
    last: int = 1

    family = "fixed"

    def __post_init__(self) -> None:
        """Check stride and last.

        Raises:
            OptionError: one is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the chunk, and the place in it."""
        own = q // self.stride == kv // self.stride
        return (kv <= q) & (own | (kv % self.stride >= self.stride - self.last))

    def tiles(self, grid: Grid) -> Tensor:
        """Those of chunks, and those that hold such a column."""
        columns = holding(grid, self.stride, self.last)
        kept = torch.maximum(Chunked(self.stride).tiles(grid), columns)
        return torch.minimum(Causal().tiles(grid), kept)


COMPONENTS = (Fixed(128),)
