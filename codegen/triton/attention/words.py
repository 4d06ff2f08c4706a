"""Triton of attention with few queries: each key is read once for all query heads that share it."""

from __future__ import annotations

TEXT = '''\
@triton.jit
def words_of_mask(mask, batch, head, query):
    """Pointers to the first word of each row, of which every bit stands for a key."""
    header = mask.to(tl.pointer_type(tl.int64))
    batches, heads, queries = tl.load(header + 1), tl.load(header + 2), tl.load(header + 3)
    at = (batch % batches * heads + head % heads) * queries + query
    bits = (mask + tl.load(header + 11)).to(tl.pointer_type(tl.int64))
    return bits + at * tl.cdiv(tl.load(header + 4), TILE)


@triton.jit(do_not_specialize=["queries", "keys", "parts"])
def attend_words(
    q, k, v, k_scale, v_scale, mask, bias, out, sums_out, totals_out,
    scale, softcap, heads, queries, keys, parts,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    out_batch, out_head, out_row, bias_batch, bias_head, bias_row, bias_key,
    k_scale_batch, k_scale_head, k_scale_row, v_scale_batch, v_scale_head, v_scale_row,
    BLOCK_M: tl.constexpr,
):
    """BLOCK_M rows: queries of all heads that share a key head, TILE keys a pass.

    The keys are split in parts; where these are several, what comes of each goes to `sums_out`
    `[parts, rows, VALUE_DIM]` and, the largest score and the total, to `totals_out`
    `[parts, rows, 2]`, for `merge_parts`.
    """
    own = queries * GROUPS
    blocks = tl.cdiv(own, BLOCK_M)
    part = tl.program_id(0) % parts
    block = tl.program_id(0) // parts % blocks
    pair = tl.program_id(0) // (parts * blocks)
    key_heads = heads // GROUPS
    batch, key_head = (pair // key_heads).to(tl.int64), (pair % key_heads).to(tl.int64)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    is_row = row < own
    query, head = row // GROUPS, key_head * GROUPS + row % GROUPS
    columns = tl.arange(0, HEAD_PADDED)
    q_rows = q + batch * q_batch + head * q_head + query * q_row
    inside = is_row[:, None] & (columns < HEAD_DIM)[None, :]
    q_tile = tl.load(q_rows[:, None] + columns[None, :], mask=inside, other=0.0)
    k_head_rows = k + batch * k_batch + key_head * k_head
    v_head_rows = v + batch * v_batch + key_head * v_head
    k_scale_at = batch * k_scale_batch + key_head * k_scale_head
    v_scale_at = batch * v_scale_batch + key_head * v_scale_head
    if mask is not None:
        word_rows = words_of_mask(mask, batch, head, query)
    if bias is not None:
        bias_rows = bias + batch * bias_batch + head * bias_head + query * bias_row
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, VALUE_PADDED), tl.float32)
    tiles = tl.cdiv(keys, TILE)
    share = tl.cdiv(tiles, parts)
    for tile in range(part * share, tl.minimum(part * share + share, tiles)):
        bit = tl.arange(0, TILE)
        begin = tl.cast(tile, tl.int64) * TILE
        there = begin + bit < keys
        counts = is_row[:, None] & there[None, :]
        if mask is not None:
            words = tl.load(word_rows + tile, mask=is_row, other=0)
            counts = counts & ((words[:, None] >> bit.to(tl.int64)[None, :] & 1) != 0)
            # Where nobody attends to any of the keys they are not read.
            there = begin + bit < keys * tl.max((words != 0).to(tl.int32), 0)
        k_tile = load_scaled_rows(
            k_head_rows + begin * k_row, k_row, k_scale, k_scale_at + begin * k_scale_row,
            k_scale_row, there, q_tile.dtype, HEAD_DIM, HEAD_PADDED,
        )
        scores = scores_of(q_tile, k_tile, scale, softcap)
        if bias is not None:
            added = (bias_rows + begin * bias_key)[:, None] + (bit * bias_key)[None, :]
            scores += bias_of(tl.load(added, mask=counts, other=0.0))
        scores = tl.where(counts, scores, float("-inf"))
        v_tile = load_scaled_rows(
            v_head_rows + begin * v_row, v_row, v_scale, v_scale_at + begin * v_scale_row,
            v_scale_row, there, q_tile.dtype, VALUE_DIM, VALUE_PADDED,
        )
        largest, total, sums = add_keys(scores, v_tile, largest, total, sums)
    columns = tl.arange(0, VALUE_PADDED)
    inside = is_row[:, None] & (columns < VALUE_DIM)[None, :]
    if sums_out is None:
        result = sums / tl.where(total == 0, 1.0, total)[:, None]
        out_rows = out + batch * out_batch + head * out_head + query * out_row
        at = out_rows[:, None] + columns[None, :]
        tl.store(at, result.to(out.dtype.element_ty), mask=inside)
    else:
        pairs = tl.num_programs(0) // (parts * blocks)
        at = (tl.cast(part, tl.int64) * pairs + pair) * own + row
        tl.store(sums_out + at[:, None] * VALUE_DIM + columns[None, :], sums, mask=inside)
        tl.store(totals_out + at * 2, largest, mask=is_row)
        tl.store(totals_out + at * 2 + 1, total, mask=is_row)


@triton.jit(do_not_specialize=["queries", "keys", "parts"])
def merge_parts(
    parts_sums, parts_totals, out, heads, queries, parts, out_batch, out_head, out_row
):
    """One row: the parts of its keys in their order, whichever was ready first."""
    own = queries * GROUPS
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    columns = tl.arange(0, VALUE_PADDED)
    largest = tl.load(parts_totals + row * 2)
    for part in range(1, parts):
        largest = tl.maximum(largest, tl.load(parts_totals + (row + part * rows) * 2))
    finite = tl.where(largest == float("-inf"), 0.0, largest)
    total = 0.0
    sums = tl.zeros((VALUE_PADDED,), tl.float32)
    for part in range(parts):
        at = row + part * rows
        kept = tl.exp2(tl.load(parts_totals + at * 2) - finite)
        total += tl.load(parts_totals + at * 2 + 1) * kept
        there = columns < VALUE_DIM
        sums += tl.load(parts_sums + at * VALUE_DIM + columns, mask=there, other=0.0) * kept
    pair, row = row // own, row % own
    batch = pair // (heads // GROUPS)
    head = pair % (heads // GROUPS) * GROUPS + row % GROUPS
    to = out + batch * out_batch + head * out_head + row // GROUPS * out_row
    result = sums / tl.where(total == 0, 1.0, total)
    tl.store(to + columns, result.to(out.dtype.element_ty), mask=columns < VALUE_DIM)
'''
