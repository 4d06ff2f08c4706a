"""BlockMask: which tiles of an attention matrix are computed, and which of their places count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

TILE = 64
"""Queries, and keys, of a tile."""
FEW_QUERIES = 16
"""Up to so many queries there are no tiles but a word a query: see `BlockMask`."""
FULL, BIASED = -1, -2
"""Kinds of tiles that have no bits."""
HEADER_BYTES = 128


@dataclass(frozen=True)
class BlockMask:
    """The kept tiles of an attention matrix `[q, kv]`, for each batch entry and head.

    A tile is `TILE` queries by `TILE` keys; those at the edges may stick out. Every row of tiles
    has the list of those that are kept. Of each its kind: `FULL`, where every place in the matrix
    counts; `BIASED`, where what is added to the scores says which do; else the row of `bits` that
    says it. As a mask:

        for b, h, row:
            for place in range(starts[b, h, row], starts[b, h, row + 1]):
                i, j = row * TILE, tiles[place] * TILE
                mask[b, h, i : i + TILE, j : j + TILE] = (
                    True if kinds[place] < 0 else
                    [[bits[kinds[place], key] >> query & 1 for key in 64] for query in 64])

    With at most `FEW_QUERIES` queries there are no tiles: `bits` is `[batch, heads, q, words]`, of
    every query a bit for each key, key 0 the lowest of the first word.

    Attributes:
        shape: `(batch, heads, q, kv)`; batch and heads are 1 where all have one mask.
        starts: `[batch * heads * rows + 1]` int32, places in `tiles`; `rows` is q over `TILE`,
            rounded up; empty without tiles.
        tiles: `[kept]` int32, rising in each row.
        kinds: `[kept]` int32.
        bits: `[partial, TILE]` int64 that stand for 64 bits each: a word for each key, of which
            bit `i` stands for query `i` of the tile. See above without tiles.
        is_biased: whether there are tiles that are `BIASED`, or without tiles the scores of kept
            keys get something added.
    """

    shape: tuple[int, int, int, int]
    starts: Tensor
    tiles: Tensor
    kinds: Tensor
    bits: Tensor
    is_biased: bool = False

    WORDS: ClassVar[int] = 2
    TILES: ClassVar[int] = 1

    @classmethod
    def of(cls, mask: Tensor) -> BlockMask:
        """The definition: by looking at every place.

        Args:
            mask: `[batch, heads, q, kv]` bool, True where a query attends to a key.
        """
        batch, heads, q, kv = mask.shape
        none = torch.zeros(0, dtype=torch.int32)
        if q <= FEW_QUERIES:
            bits = words(_padded(mask, 1, TILE).unflatten(3, (-1, TILE)))
            return cls((batch, heads, q, kv), none, none, none, bits)
        there = _padded(torch.ones(1, 1, q, kv, dtype=torch.bool), TILE, TILE)
        places = _tiled(_padded(mask, TILE, TILE))
        kept = places.any(5).any(4)
        full = (places | ~_tiled(there)).all(5).all(4)
        counts = kept.sum(3).flatten().cumsum(0)
        starts = torch.cat((torch.zeros(1, dtype=torch.int64), counts)).to(torch.int32)
        tiles = kept.nonzero()[:, 3].to(torch.int32)
        partial = ~full[kept]
        kinds = torch.where(partial, partial.cumsum(0) - 1, FULL).to(torch.int32)
        bits = words(places[kept][partial].transpose(1, 2))
        return cls((batch, heads, q, kv), starts, tiles, kinds, bits)

    def dense(self) -> Tensor:
        """The mask `[batch, heads, q, kv]` bool; places of tiles that are `BIASED` are True."""
        batch, heads, q, kv = self.shape
        if q <= FEW_QUERIES:
            return _bits(self.bits).flatten(3)[..., :kv]
        rows, columns = -(-q // TILE), -(-kv // TILE)
        mask = torch.zeros(batch * heads * rows, columns, TILE, TILE, dtype=torch.bool)
        row = torch.repeat_interleave(torch.arange(batch * heads * rows), self.starts.diff())
        places = torch.ones(len(self.tiles), TILE, TILE, dtype=torch.bool)
        partial = self.kinds >= 0
        places[partial] = _bits(self.bits).transpose(1, 2)[self.kinds[partial].long()]
        mask[row, self.tiles.long()] = places
        mask = mask.view(batch, heads, rows, columns, TILE, TILE).transpose(3, 4)
        return mask.reshape(batch, heads, rows * TILE, columns * TILE)[:, :, :q, :kv]

    def tensors(self) -> Mapping[str, Tensor]:
        """Those of the layout, in order."""
        return {"starts": self.starts, "tiles": self.tiles, "kinds": self.kinds, "bits": self.bits}

    def layout(self) -> Tensor:
        """As kernels read it: `SCBlockMask` of `codegen/cpp/text/attention/arguments.h`.

        Returns:
            `[bytes]` uint8: a header of `HEADER_BYTES`, then the tensors, each at a multiple of 64
            bytes.
        """
        offsets, end = [], HEADER_BYTES
        parts = [t.contiguous().view(-1).view(torch.uint8) for t in self.tensors().values()]
        for part in parts:
            offsets.append(end)
            end += -(-part.numel() // 64) * 64
        form = self.WORDS if self.shape[2] <= FEW_QUERIES else self.TILES
        header = [form, *self.shape, end, len(self.tiles), self.bits.shape[0]]
        header += [*offsets, int(self.is_biased)]
        header += [0] * (HEADER_BYTES // 8 - len(header))
        memory = torch.zeros(end, dtype=torch.uint8)
        memory[:HEADER_BYTES] = torch.tensor(header, dtype=torch.int64).view(torch.uint8)
        for offset, part in zip(offsets, parts, strict=True):
            memory[offset : offset + part.numel()] = part
        return memory


def _padded(mask: Tensor, queries: int, keys: int) -> Tensor:
    """With places that are False up to multiples of these."""
    q, kv = mask.shape[2:]
    return torch.nn.functional.pad(mask, (0, -kv % keys, 0, -q % queries))


def _tiled(mask: Tensor) -> Tensor:
    """`[batch, heads, rows, columns, TILE, TILE]`."""
    tiles: Tensor = mask.unflatten(3, (-1, TILE)).unflatten(2, (-1, TILE)).transpose(3, 4)
    return tiles


def words(bits: Tensor) -> Tensor:
    """The last dimension, of `TILE` places, as words: int64, place 0 the lowest bit."""
    return (bits.long() << torch.arange(TILE)).sum(-1)


def _bits(words: Tensor) -> Tensor:
    """What `words` took."""
    bits: Tensor = words[..., None] >> torch.arange(TILE) & 1
    return bits.bool()
