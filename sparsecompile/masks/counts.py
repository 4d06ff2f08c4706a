"""How many places of each tile a mask keeps, and what share of all."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.masks.block_mask import FEW_QUERIES, TILE, BlockMask


def counts(mask: BlockMask) -> tuple[Tensor, Tensor]:
    """Of each tile the kept places, and all of them.

    With few queries, which have no tiles, a query and the `TILE` keys of a word are taken for one.

    Returns:
        `[batch, heads, rows, columns]` and `[rows, columns]`, int64. Places of tiles that are
        biased count.
    """
    batch, heads, q, kv = mask.shape
    height = 1 if q <= FEW_QUERIES else TILE
    areas = _parts(q, height)[:, None] * _parts(kv, TILE)
    bits = (mask.bits[..., None] >> torch.arange(TILE) & 1).flatten(-2).sum(-1)
    if q <= FEW_QUERIES:
        return (mask.bits[..., None] >> torch.arange(TILE) & 1).sum(-1), areas
    kept = torch.zeros(batch * heads * len(areas), areas.shape[1], dtype=torch.int64)
    row = torch.repeat_interleave(torch.arange(len(kept)), mask.starts.diff())
    column = mask.tiles.long()
    partial = mask.kinds >= 0
    found = areas[row % len(areas), column]
    found[partial] = bits[mask.kinds[partial].long()]
    kept[row, column] = found
    return kept.view(batch, heads, *areas.shape), areas


def share(mask: BlockMask) -> float:
    """The kept share of all places; 0 where there are none."""
    kept, areas = counts(mask)
    batch, heads = kept.shape[:2]
    places = batch * heads * int(areas.sum())
    return int(kept.sum()) / places if places else 0.0


def _parts(size: int, step: int) -> Tensor:
    """Sizes of the parts of that step, of which the last may be smaller."""
    return (size - torch.arange(0, size, step)).clamp(max=step)
