"""Triton of attention with many queries: a loop over the kept tiles of a row of tiles."""

from __future__ import annotations

TEXT = '''\
@triton.jit
def row_of_tiles(mask, batch, head, row):
    """Pointers to the columns of tiles and to the kinds of a row's kept tiles, and how many."""
    header = mask.to(tl.pointer_type(tl.int64))
    batches, heads, queries = tl.load(header + 1), tl.load(header + 2), tl.load(header + 3)
    at = (batch % batches * heads + head % heads) * tl.cdiv(queries, TILE) + row
    starts = (mask + tl.load(header + 8)).to(tl.pointer_type(tl.int32)) + at
    begin = tl.load(starts)
    tiles = (mask + tl.load(header + 9)).to(tl.pointer_type(tl.int32)) + begin
    kinds = (mask + tl.load(header + 10)).to(tl.pointer_type(tl.int32)) + begin
    return tiles, kinds, tl.load(starts + 1) - begin


@triton.jit
def bits_of_tiles(mask):
    """Of each tile that has bits a word for each key, with a bit for each of its queries."""
    header = mask.to(tl.pointer_type(tl.int64))
    return (mask + tl.load(header + 11)).to(tl.pointer_type(tl.int64))


@triton.jit(do_not_specialize=["queries", "keys", "parts"])
def attend_tiles(
    q, k, v, k_scale, v_scale, mask, bias, out,
    scale, softcap, heads, queries, keys,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    out_batch, out_head, out_row, bias_batch, bias_head, bias_row, bias_key,
    k_scale_batch, k_scale_head, k_scale_row, v_scale_batch, v_scale_head, v_scale_row,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """BLOCK_M queries of one head, of one row of tiles; BLOCK_N keys of a kept tile a pass."""
    blocks = tl.cdiv(queries, BLOCK_M)
    pair = tl.program_id(0) // blocks
    # The last queries first: where the mask is causal they have the most keys.
    first = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    batch, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    key_head = head // GROUPS
    rows = first + tl.arange(0, BLOCK_M)
    q_rows = q + batch * q_batch + head * q_head + tl.cast(first, tl.int64) * q_row
    q_tile = load_rows(q_rows, q_row, rows < queries, HEAD_DIM, HEAD_PADDED)
    k_head_rows = k + batch * k_batch + key_head * k_head
    v_head_rows = v + batch * v_batch + key_head * v_head
    k_scale_at = batch * k_scale_batch + key_head * k_scale_head
    v_scale_at = batch * v_scale_batch + key_head * v_scale_head
    if bias is not None:
        bias_rows = bias + batch * bias_batch + head * bias_head
        bias_rows += tl.cast(first, tl.int64) * bias_row
    if mask is not None:
        tiles, kinds, kept = row_of_tiles(mask, batch, head, first // TILE)
        bits = bits_of_tiles(mask)
    else:
        kept = tl.cdiv(keys, TILE)
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, VALUE_PADDED), tl.float32)
    for turn in range(kept * (TILE // BLOCK_N)):
        place = turn * BLOCK_N // TILE
        if mask is not None:
            tile, kind = tl.load(tiles + place), tl.load(kinds + place)
        else:
            tile, kind = place, BIASED
        in_tile = turn * BLOCK_N - place * TILE + tl.arange(0, BLOCK_N)
        there = tile * TILE + in_tile < keys
        begin = tl.cast(tile, tl.int64) * TILE + (turn * BLOCK_N - place * TILE)
        k_tile = load_scaled_rows(
            k_head_rows + begin * k_row, k_row, k_scale, k_scale_at + begin * k_scale_row,
            k_scale_row, there, q_tile.dtype, HEAD_DIM, HEAD_PADDED,
        )
        scores = scores_of(q_tile, k_tile, scale, softcap)
        scores += tl.where(there, 0.0, float("-inf"))[None, :]
        if mask is not None:
            if kind >= 0:
                words = tl.load(bits + tl.cast(kind, tl.int64) * TILE + in_tile)
                counts = words[None, :] >> (rows % TILE).to(tl.int64)[:, None] & 1
                scores = tl.where(counts != 0, scores, float("-inf"))
        if bias is not None:
            if kind == BIASED:
                at = tl.arange(0, BLOCK_M)[:, None] * bias_row
                at += tl.arange(0, BLOCK_N)[None, :] * bias_key
                inside = (rows < queries)[:, None] & there[None, :]
                added = tl.load(bias_rows + begin * bias_key + at, mask=inside, other=0.0)
                scores += bias_of(added)
        v_tile = load_scaled_rows(
            v_head_rows + begin * v_row, v_row, v_scale, v_scale_at + begin * v_scale_row,
            v_scale_row, there, q_tile.dtype, VALUE_DIM, VALUE_PADDED,
        )
        largest, total, sums = add_keys(scores, v_tile, largest, total, sums)
    # Zeros where a query has no key.
    result = sums / tl.where(total == 0, 1.0, total)[:, None]
    out_rows = out + batch * out_batch + head * out_head + tl.cast(first, tl.int64) * out_row
    columns = tl.arange(0, VALUE_PADDED)
    at = tl.arange(0, BLOCK_M)[:, None] * out_row + columns[None, :]
    inside = (rows < queries)[:, None] & (columns < VALUE_DIM)[None, :]
    tl.store(out_rows + at, result.to(out.dtype.element_ty), mask=inside)
'''
