"""attention bfloat16 d=64 groups=3

template: triton_flash; target: cuda sm_90
schedule: few_rows=16 few_warps=4 many_keys=64 many_queries=64 many_warps=4 programs=264 stages=2
out = softmax(softcap(q @ k.T * scale) + bias) @ v over the keys that the mask keeps; zeros where
there are none. All sizes but the widths of heads are run-time values.

attend_words takes up to 16 queries: 16 rows a program, 4 warps, keys split up to 264 programs.
attend_tiles takes any number: 64 queries a program, 64 keys a pass, 4 warps. Both have 2 stages.

What is launched takes q `[batch, heads, queries, d]`, k `[batch, heads / groups, keys, d]`, v `[..,
keys, dv]` and out `[batch, heads, queries, dv]`, whose rows are contiguous and begin where the
strides say; mask, a BlockMask's layout as bytes, or None for all keys; bias `[batch, heads,
queries, keys]` or None; k_scale and v_scale `[batch, heads / groups, keys, 1]` where k and v are
int8, or None.
"""

import triton
import triton.language as tl

HEAD_DIM = tl.constexpr(64)  # of queries and keys
HEAD_PADDED = tl.constexpr(64)
VALUE_DIM = tl.constexpr(64)  # of values
VALUE_PADDED = tl.constexpr(64)
GROUPS = tl.constexpr(3)  # query heads that share a key head
SOFTCAP = tl.constexpr(False)
TILE = tl.constexpr(64)  # queries, and keys, of a tile
BIASED = tl.constexpr(-2)  # kind of a tile in which the bias says which places count
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rows(data, stride, there, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The rows of `data` that are there, `[len(there), PADDED]`: WIDTH numbers and zeros."""
    columns = tl.arange(0, PADDED)
    inside = there[:, None] & (columns < WIDTH)[None, :]
    rows = data + tl.arange(0, there.shape[0])[:, None] * stride
    return tl.load(rows + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_scaled_rows(
    data, stride, scales, first_scale, scale_stride, there, dtype: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr,
):
    """The same of a dtype: where there are scales, of integers that are multiplied by these."""
    rows = load_rows(data, stride, there, WIDTH, PADDED)
    if scales is not None:
        first = scales + first_scale
        scale = tl.load(first + tl.arange(0, there.shape[0]) * scale_stride, mask=there, other=0.0)
        rows = (rows.to(tl.float32) * scale.to(tl.float32)[:, None]).to(dtype)
    return rows


@triton.jit
def capped(scores):
    """`tanh(scores)`, near zero by its series: there a difference of exponentials is inexact."""
    square = scores * scores
    near = scores * (1 + square * (-1 / 3 + square * (2 / 15 - square * (17 / 315))))
    small = tl.exp2(tl.abs(scores) * (-2 * LOG2_E))
    far = (1 - small) / (1 + small)
    return tl.where(square < 0.04, near, tl.where(scores < 0, -far, far))


@triton.jit
def scores_of(queries, keys, scale, softcap):
    """`[queries, keys]` float32, times the binary logarithm of e: weights are powers of two."""
    products = tl.dot(queries, tl.trans(keys), input_precision="ieee")
    if SOFTCAP:
        return capped(products * (scale / softcap)) * (softcap * LOG2_E)
    return products * (scale * LOG2_E)


@triton.jit
def bias_of(added):
    """What is added to scores, in the same terms; what is finite stays so, however small it is."""
    value = added.to(tl.float32)
    is_least = (value < -2.3e38) & (value > float("-inf"))
    return tl.where(is_least, -3.3e38, value * LOG2_E)


@triton.jit
def add_keys(scores, values, largest, total, sums):
    """One more pass of keys: the largest score of each query so far, and sums in its terms.

    A query without any key so far has -inf, zero and zeros.
    """
    new = tl.maximum(largest, tl.max(scores, 1))
    finite = tl.where(new == float("-inf"), 0.0, new)
    weights = tl.exp2(scores - finite[:, None])
    kept = tl.exp2(largest - finite)
    total = total * kept + tl.sum(weights, 1)
    weights = weights.to(values.dtype)
    sums = tl.dot(weights, values, sums * kept[:, None], input_precision="ieee")
    return new, total, sums


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
