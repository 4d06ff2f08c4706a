"""From what is known of tiles to a BlockMask: only tiles at edges are looked into."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsecompile.masks import block_mask
from sparsecompile.masks.block_mask import FEW_QUERIES, BlockMask, words
from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid

TILES_AT_ONCE = 256
"""A million places: bounds the memory in which a predicate is computed."""


def build(
    grid: Grid,
    batch: int,
    heads: int,
    tiles: Callable[[Grid], Tensor],
    keeps: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> BlockMask:
    """The kept tiles of a matrix.

    Args:
        grid: the matrix.
        batch: entries of the batch that differ; 1 where none do.
        heads: likewise.
        tiles: what is known of each: `[batch or 1, heads or 1, rows, columns]`.
        keeps: of places `b, h, q, kv`, int64 that broadcast, whether they count: bool.
    """
    shape = (batch, heads, grid.q, grid.kv)
    if grid.q <= FEW_QUERIES:
        return BlockMask.of(keeps(*grid.places(batch, heads)).expand(shape))
    known = tiles(grid).expand(batch, heads, -1, -1).clone()
    looked_at = (known == PARTIAL).nonzero()
    bits = [torch.zeros(0, block_mask.TILE, dtype=torch.int64)]
    for places in looked_at.split(TILES_AT_ONCE):
        b, h, i, j = places.unbind(1)
        inside = grid.inside(i, j)
        q, kv = grid.queries[i][:, :, None], grid.keys[j][:, None, :]
        kept = keeps(b[:, None, None], h[:, None, None], q, kv).expand_as(inside) & inside
        found = torch.where((kept | ~inside).all(2).all(1), FULL, PARTIAL)
        found[~kept.any(2).any(1)] = NONE
        known[b, h, i, j] = found.to(known.dtype)
        bits.append(words(kept[found == PARTIAL].transpose(1, 2)))
    there = known != NONE
    starts = torch.nn.functional.pad(there.sum(3).flatten().cumsum(0), (1, 0))
    partial = known[there] == PARTIAL
    kinds = torch.where(partial, partial.cumsum(0) - 1, block_mask.FULL)
    return BlockMask(
        shape,
        starts.to(torch.int32),
        there.nonzero()[:, 3].to(torch.int32),
        kinds.to(torch.int32),
        torch.cat(bits),
    )
