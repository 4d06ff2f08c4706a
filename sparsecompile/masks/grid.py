"""Grid: the places of an attention matrix, and the tiles that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.masks.block_mask import TILE

NONE, PARTIAL, FULL = 0, 1, 2
"""What is known of a tile: nothing in it is kept, some of it may be, all of it is.

So `&` of patterns is the minimum of what is known of their tiles, and `|` the maximum.
"""


@dataclass(frozen=True)
class Grid:
    """A matrix of `q` queries and `kv` keys, in tiles of `TILE` by `TILE`.

    Attributes:
        q: number of queries.
        kv: number of keys.
        offset: position of the first query, as after so many keys in a cache.
        kv_offset: position of the first key.
    """

    q: int
    kv: int
    offset: int = 0
    kv_offset: int = 0

    @cached_property
    def queries(self) -> Tensor:
        """Positions of the queries of each row of tiles: `[rows, TILE]` int64.

        Where a tile sticks out of the matrix it has the last query again.
        """
        return _tiled(self.q) + self.offset

    @cached_property
    def keys(self) -> Tensor:
        """Positions of the keys of each column of tiles: `[columns, TILE]` int64, likewise."""
        return _tiled(self.kv) + self.kv_offset

    def inside(self, row: Tensor, column: Tensor) -> Tensor:
        """Which places of some tiles lie in the matrix: `[tiles, TILE, TILE]` bool."""
        there = [
            (tile[:, None] * TILE + torch.arange(TILE)) < size
            for tile, size in ((row, self.q), (column, self.kv))
        ]
        return there[0][:, :, None] & there[1][:, None, :]

    def places(self, batch: int, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`b, h, q, kv` of every place, int64, which broadcast to `[batch, heads, q, kv]`."""
        return (
            torch.arange(batch).view(-1, 1, 1, 1),
            torch.arange(heads).view(-1, 1, 1),
            torch.arange(self.offset, self.offset + self.q).view(-1, 1),
            torch.arange(self.kv_offset, self.kv_offset + self.kv),
        )


def _tiled(size: int) -> Tensor:
    places = torch.arange(-(-size // TILE) * TILE).clamp(max=max(size - 1, 0))
    return places.view(-1, TILE)
