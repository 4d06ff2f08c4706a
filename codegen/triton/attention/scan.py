"""Triton that finds the kept tiles of a mask, or of intervals of keys."""

from __future__ import annotations

from sparsecompile.kernels.template import Source
from sparsecompile.masks.block_mask import BIASED, FULL, TILE

DROPPED = -60000
"""So much, or less, is added to the score of a key that does not count."""
NONE = -3
"""In the place of a kind where a tile is not kept."""

CONSTANTS = f'''\
"""What sparsecompile/masks/block_mask.py says of a mask that is in memory, or of intervals of keys.

A mask is `[batch, heads, queries, keys]`: int8, not zero where a query attends to a key, or what is
added to scores. Intervals are `low <= key < high`, int32 `[batch, heads, queries]`, of keys that
`keep` `[batch, keys]` names and whose ids are those of the query.
"""

import triton
import triton.language as tl

TILE = tl.constexpr({TILE})  # queries, and keys, of a tile
FULL = tl.constexpr({FULL})  # kind of a tile in which every place counts
BIASED = tl.constexpr({BIASED})  # kind of a tile in which what is added says which places count
NONE = tl.constexpr({NONE})  # instead of a kind where a tile is not kept
DROPPED = tl.constexpr({DROPPED})  # so much, or less, is added where a key does not count
'''

FUNCTIONS = '''\
@triton.jit
def added_to_scores(
    mask, low, high, keep, q_ids, kv_ids, batch_stride, head_stride, row_stride, key_stride,
    batch, head, query, key, queries, keys, ADDS: tl.constexpr,
):
    """0 where a query attends to a key, -inf where it does not, or what is added to its score."""
    first = batch * batch_stride + head * head_stride
    inside = (query < queries)[:, None] & (key < keys)[None, :]
    if mask is not None:
        places = query.to(tl.int64)[:, None] * row_stride + key.to(tl.int64)[None, :] * key_stride
        value = tl.load(mask + first + places, mask=inside, other=0)
        if ADDS:
            added = value.to(tl.float32)
        else:
            added = tl.where(value != 0, 0.0, float("-inf"))
    else:
        begin = tl.load(low + first + query, mask=query < queries, other=0)
        end = tl.load(high + first + query, mask=query < queries, other=0)
        counts = (begin[:, None] <= key[None, :]) & (key[None, :] < end[:, None])
        if keep is not None:
            kept = tl.load(keep + batch * keys + key, mask=key < keys, other=0)
            counts = counts & (kept != 0)[None, :]
        if q_ids is not None:
            of_query = tl.load(q_ids + batch * queries + query, mask=query < queries, other=0)
            of_key = tl.load(kv_ids + batch * keys + key, mask=key < keys, other=0)
            counts = counts & (of_query[:, None] == of_key[None, :])
        added = tl.where(counts, 0.0, float("-inf"))
    return tl.where(inside, added, float("-inf"))


@triton.jit
def holds_anywhere(places):
    """Whether some place of `[rows, columns]` is true: 1 or 0."""
    return tl.max(tl.max(places.to(tl.int32), 1), 0)


@triton.jit(do_not_specialize=["queries", "keys"])
def scan_tiles(
    mask, low, high, keep, q_ids, kv_ids, kinds, bits, lacking,
    batch_stride, head_stride, row_stride, key_stride, heads, queries, keys, ADDS: tl.constexpr,
):
    """One row of tiles: their kinds, their bits, and whether a query attends to no key as it is."""
    index = tl.program_id(0)
    pair, row = index // tl.cdiv(queries, TILE), index % tl.cdiv(queries, TILE)
    batch, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    in_tile = tl.arange(0, TILE)
    query = row * TILE + in_tile
    attends = tl.zeros((TILE,), tl.int32)
    columns = tl.cdiv(keys, TILE)
    for column in range(columns):
        key = column * TILE + in_tile
        added = added_to_scores(
            mask, low, high, keep, q_ids, kv_ids, batch_stride, head_stride, row_stride, key_stride,
            batch, head, query, key, queries, keys, ADDS,
        )
        counts = added == 0
        attends = tl.maximum(attends, tl.max(counts.to(tl.int32), 1))
        inside = (query < queries)[:, None] & (key < keys)[None, :]
        place = index * columns + column
        kind = tl.where(holds_anywhere(counts) != 0, place, NONE)
        kind = tl.where(holds_anywhere(inside & (added != 0)) != 0, kind, FULL)
        if ADDS:
            is_other = inside & (added != 0) & ((added > DROPPED) | (added != added))
            kind = tl.where(holds_anywhere(is_other) != 0, BIASED, kind)
        tl.store(kinds + place, kind)
        words = tl.sum(counts.to(tl.int64) << in_tile.to(tl.int64)[:, None], 0)
        tl.store(bits + place.to(tl.int64) * TILE + in_tile, words)
    lacks = tl.where(query < queries, 1 - attends, 0)
    tl.store(lacking + index, tl.max(lacks, 0))


@triton.jit(do_not_specialize=["queries", "keys"])
def scan_words(
    mask, low, high, keep, q_ids, kv_ids, bits,
    batch_stride, head_stride, row_stride, key_stride, heads, queries, keys, ADDS: tl.constexpr,
):
    """One query: a bit for each key, TILE words at once."""
    index = tl.program_id(0)
    pair, query = index // queries, index % queries + tl.arange(0, 1)
    batch, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    lacks = 0
    if ADDS:
        # Where no key counts as it is, what is added decides among all of them.
        attends = 0
        for first in range(0, keys, TILE * TILE):
            added = added_to_scores(
                mask, low, high, keep, q_ids, kv_ids,
                batch_stride, head_stride, row_stride, key_stride,
                batch, head, query, first + tl.arange(0, TILE * TILE), queries, keys, ADDS,
            )
            attends = tl.maximum(attends, holds_anywhere(added == 0))
        lacks = 1 - attends
    columns = tl.cdiv(keys, TILE)
    for first in range(0, keys, TILE * TILE):
        key = first + tl.arange(0, TILE * TILE)
        added = added_to_scores(
            mask, low, high, keep, q_ids, kv_ids, batch_stride, head_stride, row_stride, key_stride,
            batch, head, query, key, queries, keys, ADDS,
        )
        counts = (added > DROPPED) | (added != added) | ((key < keys * lacks)[None, :])
        of_words = tl.reshape(counts.to(tl.int64), (TILE, TILE))
        words = tl.sum(of_words << tl.arange(0, TILE).to(tl.int64)[None, :], 1)
        at = first // TILE + tl.arange(0, TILE)
        tl.store(bits + index.to(tl.int64) * columns + at, words, mask=at < columns)


@triton.jit(do_not_specialize=["queries", "keys", "total_bytes", "partial"])
def write_header(
    header, form, batch, heads, queries, keys, total_bytes, kept, partial, starts, tiles, kinds,
    bits, is_biased,
):
    """The numbers that a layout begins with: int64; `kept` is a pointer, to int32."""
    tl.store(header, form)
    tl.store(header + 1, batch)
    tl.store(header + 2, heads)
    tl.store(header + 3, queries)
    tl.store(header + 4, keys)
    tl.store(header + 5, total_bytes)
    tl.store(header + 6, tl.load(kept))
    tl.store(header + 7, partial)
    tl.store(header + 8, starts)
    tl.store(header + 9, tiles)
    tl.store(header + 10, kinds)
    tl.store(header + 11, bits)
    tl.store(header + 12, is_biased)
'''

SOURCE = Source("kept_tiles", "triton", f"{CONSTANTS}\n\n{FUNCTIONS}", ())
"""The module; there is one for all masks."""
