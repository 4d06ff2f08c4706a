"""Block masks made on a GPU: nobody waits for how many tiles are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.attention.scan import NONE, SOURCE
from sparsecompile.codegen.triton.module import import_module, write_module
from sparsecompile.masks.block_mask import BIASED, FEW_QUERIES, HEADER_BYTES, TILE, BlockMask
from sparsecompile.operators.attention.ops import most_bytes, shape_of_intervals

Options = dict[str, Any]
WARPS = 8
"""Of functions that look at a tile, each of whose places has an address."""


def scan_mask(mask: Tensor, options: Options) -> Tensor:
    """The layout of a `BlockMask`, with room for all tiles.

    Exactly 0 counts in a mask that is added to scores, -60000 and less does not; of what else there
    is, and where a query has no 0, the mask itself has to be added.

    Args:
        mask: `[batch, heads, queries, keys]`, bool or what is added to scores.
        options: for Triton's compiler.

    Returns:
        `[bytes]` uint8.
    """
    adds = mask.is_floating_point()
    given = (mask if adds else mask.view(torch.int8), *[None] * 5)
    return _layout(mask.shape, given, mask.stride(), adds=adds, options=options)


def interval_mask(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    q_ids: Tensor | None,
    kv_ids: Tensor | None,
    kv: int,
    options: Options,
) -> Tensor:
    """The layout of a `BlockMask` of the keys `low <= key < high`, with room for all tiles.

    Args:
        low: `[batch or 1, heads or 1, queries]` int32.
        high: the same.
        keep: `[batch or 1, kv]` bool, the keys that count; None for all.
        q_ids: `[batch or 1, queries]` int64: a query attends to keys of its id; None for all.
        kv_ids: `[batch or 1, kv]` int64.
        kv: number of keys.
        options: for Triton's compiler.

    Returns:
        `[bytes]` uint8.
    """
    shape = shape_of_intervals(low, keep, q_ids, kv)
    low, high = (t.contiguous().expand(shape[:3]) for t in (low, high))
    keep = None if keep is None else keep.view(torch.int8)
    of_batch = (keep, q_ids, kv_ids)
    vectors = (None if t is None else t.expand(shape[0], -1).contiguous() for t in of_batch)
    strides = (*low.stride()[:2], 0, 0)
    given = (None, low, high, *vectors)
    return _layout(shape, given, strides, adds=False, options=options)


def _layout(
    shape: tuple[int, ...],
    given: tuple[Tensor | None, ...],
    strides: tuple[int, ...],
    *,
    adds: bool,
    options: Options,
) -> Tensor:
    """Scan what is given, as words or as tiles."""
    device = next(t.device for t in given if t is not None)
    module: Any = import_module(write_module(SOURCE))
    batch, heads, queries, keys = shape
    columns, few = -(-keys // TILE), queries <= FEW_QUERIES
    rows = 0 if few else batch * heads * -(-queries // TILE)
    layout = torch.empty(most_bytes(*shape), dtype=torch.uint8, device=device)
    # One place more, where tiles go that are not kept.
    lengths = (rows + 1, rows * columns + 1, rows * columns + 1)
    offsets, parts, end = [], [], HEADER_BYTES
    for length in lengths:
        offsets.append(end)
        parts.append(layout[end : end + 4 * length].view(torch.int32))
        end += -(-4 * length // 64) * 64
    starts, tiles, kinds = parts
    bits = layout[end:].view(torch.int64)
    sizes = (*strides, heads, queries, keys)
    compiled = {"ADDS": adds, "num_warps": WARPS, **options}
    starts.zero_()
    if few:
        partial = batch * heads * queries
        module.scan_words[(partial,)](*given, bits, *sizes, **compiled)
    else:
        found = torch.empty((rows, columns), dtype=torch.int32, device=device)
        lacking = torch.empty((rows, 1), dtype=torch.int32, device=device)
        module.scan_tiles[(rows,)](*given, found, bits, lacking, *sizes, **compiled)
        if adds:
            found = torch.where(lacking != 0, BIASED, found)
        _list(found, starts, tiles, kinds)
        partial = rows * columns
    form = BlockMask.WORDS if few else BlockMask.TILES
    numbers = (form, *shape, layout.numel(), starts[-1:], partial, *offsets, end, int(adds))
    module.write_header[(1,)](layout[:HEADER_BYTES].view(torch.int64), *numbers, **options)
    return layout


def _list(found: Tensor, starts: Tensor, tiles: Tensor, kinds: Tensor) -> None:
    """Those of `[rows, columns]` kinds that are kept, row by row.

    Args:
        found: NONE where a tile is not kept.
        starts: `[rows + 1]`, zeros.
        tiles: `[rows * columns + 1]`, of which the last is no tile.
        kinds: the same.
    """
    rows, columns = found.shape
    kept = found != NONE
    ends = kept.flatten().cumsum(0, dtype=torch.int32).view(rows, columns)
    starts[1:] = kept.sum(1).cumsum(0)
    places = torch.where(kept, ends - 1, rows * columns).flatten().long()
    column = torch.arange(columns, dtype=torch.int32, device=found.device)
    tiles.scatter_(0, places, column.expand(rows, columns).flatten())
    kinds.scatter_(0, places, found.flatten())
