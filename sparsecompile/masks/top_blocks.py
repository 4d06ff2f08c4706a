"""`top_blocks(s)`: of every block of queries the share s of blocks of keys with the best scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.masks.block_mask import TILE
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.grid import FULL, NONE, Grid
from sparsecompile.masks.pattern import MaskPattern


@dataclass(frozen=True)
class TopBlocks(Choice):
    """Blocks of `TILE` queries, the first in a call first, and of `TILE` keys, for each head.

    Their score is the product of the means of both. The first block of keys and those at the
    queries' own positions count always; the share is of the blocks that the model's mask keeps.
    Jiang et al. (MInference, arXiv 2407.02490), of which these are the block-sparse heads.
    """

    share: float

    family = "top_blocks"

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            ValueError: it is none.
        """
        if not 0 < self.share <= 1:
            raise ValueError(f"{self.share} is no share above 0 and up to 1")

    def choose(self, q: Tensor, k: Tensor, own: Tensor, first: Tensor) -> Tensor:
        """Every place of the blocks."""
        padding = (0, -own.shape[3] % TILE, 0, -own.shape[2] % TILE)
        tiles = F.pad(own, padding).unflatten(3, (-1, TILE)).unflatten(2, (-1, TILE))
        chosen = self._blocks(q, k, tiles.any(5).any(3), first)
        shape = (*chosen.shape[:2], chosen.shape[2], TILE, chosen.shape[3], TILE)
        places = chosen[:, :, :, None, :, None].expand(shape).flatten(4, 5).flatten(2, 3)
        return places[:, :, : q.shape[2], : k.shape[2]]

    def pattern(self, q: Tensor, k: Tensor, own: MaskPattern, grid: Grid) -> MaskPattern:
        """The blocks."""
        there = own.tiles(grid) != NONE
        return Blocks(self._blocks(q, k, there, torch.tensor(grid.offset)), grid.offset)

    def _blocks(self, q: Tensor, k: Tensor, there: Tensor, first: Tensor) -> Tensor:
        """`[batch, heads, rows, columns]` bool; `there` is the same of what the mask keeps."""
        queries = q.shape[2]
        rows, columns = _means(q, torch.tensor(queries)), _means(k, first + queries)
        columns = columns.repeat_interleave(q.shape[1] // k.shape[1], 1)
        scores = (rows @ columns.mT).masked_fill(~there, -torch.inf)
        rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        chosen = rank < torch.ceil(there.sum(-1, keepdim=True) * self.share)
        row, column = (torch.arange(size) for size in scores.shape[2:])
        last = ((row + 1) * TILE).clamp(max=queries) - 1
        low, high = ((first + place) // TILE for place in (row * TILE, last))
        is_own = (low[:, None] <= column) & (column <= high[:, None])
        found: Tensor = chosen | is_own | (column == 0)
        return found


@dataclass(frozen=True, eq=False)
class Blocks(MaskPattern):
    """`chosen[b, h, (q - first) // TILE, kv // TILE]`; it has no text."""

    chosen: Tensor
    first: int

    family = "blocks"

    @property
    def batch(self) -> int:
        """Of the blocks."""
        return self.chosen.shape[0]

    @property
    def heads(self) -> int:
        """Of the blocks."""
        return self.chosen.shape[1]

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the block."""
        return self.chosen[b, h, (q - self.first) // TILE, kv // TILE]

    def tiles(self, grid: Grid) -> Tensor:
        """The blocks themselves."""
        return torch.where(self.chosen, FULL, NONE).to(torch.int8)


def _means(rows: Tensor, length: Tensor) -> Tensor:
    """Means of `TILE` rows each, of those before `length`: `[..., blocks, d]` float32."""
    place = torch.arange(rows.shape[2])
    there = (place < length).float()
    padding = -rows.shape[2] % TILE
    sums = F.pad(rows.float() * there[:, None], (0, 0, 0, padding)).unflatten(2, (-1, TILE)).sum(3)
    counts = F.pad(there, (0, padding)).unflatten(0, (-1, TILE)).sum(1)
    means: Tensor = sums / counts.clamp(min=1)[:, None]
    return means


COMPONENTS = (TopBlocks(0.2),)
