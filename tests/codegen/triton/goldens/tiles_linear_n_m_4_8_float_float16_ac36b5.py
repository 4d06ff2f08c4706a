"""linear n_m[4:8]/float float16

template: tiles; target: cuda sm_90
schedule: few_m=16 few_n=64 few_warps=4 many_m=64 many_n=128 many_warps=8 programs=264 row_n=16
row_warps=4 some_m=64 some_n=64 some_warps=4 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear_row, 16 x 1 (n x m), 4 warps, 3 stages, k split up to 264 programs
few: m <= 16, linear, 64 x 16 (n x m), 4 warps, 3 stages, k split up to 264 programs
some: m <= 128, linear, 64 x 64 (n x m), 4 warps, 3 stages, k split up to 264 programs
many: any m, linear, 128 x 64 (n x m), 8 warps, 3 stages

What is launched takes x `[m, k]`, its rows x_stride apart; weight, a layout, as bytes; bias `[n]`
and operands of the epilogue `[m, n]`, or None; and y `[m, n]`; where k is split, sums over its
parts `[SPLITS, m, n]`, which `add_parts` adds.
"""

import triton
import triton.language as tl


# Where the parts of the layout begin; each at a multiple of 16 bytes. A header of 128
# bytes comes first: n, k and the number of values that are stored, int64.
@triton.jit
def words_part(weight, n, k):
    return weight + 128


@triton.jit
def values_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    tiles = tl.cdiv(k, 128)
    size = rows * tiles * 16
    return words_part(weight, n, k) + (size + 15) // 16 * 16


# float: values as they are.
@triton.jit
def values_at(values, slots, there):
    """Values in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.float16)) + slots, mask=there, other=0.0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])


# n_m[4:8]: the code of a group is the mask of its kept columns, the first lowest.
# Of a tile of 128 columns a row holds the first kept value of every group, then every second
# one, ...; the codes of its 16 groups are in 4 words: word w has those of the groups
# w, w + 4, w + 8, ..., 8 bits each, the first lowest.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, 128]`, put together in registers."""
    at = rows.to(tl.int64) * tl.cdiv(k, 128) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * 4 + tl.arange(0, 4)[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    code = word[:, None, :] >> (tl.arange(0, 4) * 8)[None, :, None]
    code = code.reshape(rows.shape[0], 16)
    values = values_part(weight, n, k)
    v0 = values_in(values, at * 64, inside, 16)
    v1 = values_in(values, at * 64 + 16, inside, 16)
    v2 = values_in(values, at * 64 + 32, inside, 16)
    v3 = values_in(values, at * 64 + 48, inside, 16)
    zero = tl.zeros_like(v0)
    # c0 ... c7: the columns of each group, a kept value or zero.
    # b0: whether column 0 is kept; before0: how many are before it; and so on.
    b0 = code & 1
    before0 = tl.zeros_like(b0)
    c0 = tl.where(b0 == 1, v0, zero)
    b1 = (code >> 1) & 1
    before1 = before0 + b0
    c1 = tl.where(before1 == 0, v0, v1)
    c1 = tl.where(b1 == 1, c1, zero)
    b2 = (code >> 2) & 1
    before2 = before1 + b1
    c2 = tl.where(before2 == 1, v1, v2)
    c2 = tl.where(before2 == 0, v0, c2)
    c2 = tl.where(b2 == 1, c2, zero)
    b3 = (code >> 3) & 1
    before3 = before2 + b2
    c3 = tl.where(before3 == 2, v2, v3)
    c3 = tl.where(before3 == 1, v1, c3)
    c3 = tl.where(before3 == 0, v0, c3)
    c3 = tl.where(b3 == 1, c3, zero)
    b4 = (code >> 4) & 1
    before4 = before3 + b3
    c4 = tl.where(before4 == 2, v2, v3)
    c4 = tl.where(before4 == 1, v1, c4)
    c4 = tl.where(before4 == 0, v0, c4)
    c4 = tl.where(b4 == 1, c4, zero)
    b5 = (code >> 5) & 1
    before5 = before4 + b4
    c5 = tl.where(before5 == 2, v2, v3)
    c5 = tl.where(before5 == 1, v1, c5)
    c5 = tl.where(b5 == 1, c5, zero)
    b6 = (code >> 6) & 1
    before6 = before5 + b5
    c6 = tl.where(before6 == 2, v2, v3)
    c6 = tl.where(b6 == 1, c6, zero)
    b7 = (code >> 7) & 1
    c7 = tl.where(b7 == 1, v3, zero)
    # A join adds a dimension, the innermost one: c0, c1, ... end up side by side.
    tile_of_rows = tl.join(tl.join(tl.join(c0, c4), tl.join(c2, c6)), tl.join(tl.join(c1, c5), tl.join(c3, c7)))
    return tile_of_rows.reshape(rows.shape[0], 128)


@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]
    tl.store(y + at, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def load_weight(weight, rows, inside, tile, n, k):
    """One tile of some rows as it is multiplied."""
    value = load_tile(weight, rows, inside, tile, n, k)
    return value


@triton.jit
def store_part(total, parts, rows, tokens, m, n):
    """The sum over a part of k, float32: parts is `[SPLITS, m, n]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    part = tl.program_id(2).to(tl.int64) * m + tokens
    tl.store(parts + part[None, :] * n + rows[:, None], total.to(tl.float32), mask=there)


@triton.jit
def add_parts(
    parts, x_scales, weight, bias, operand0, operand1, y, m, n, k,
    BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
):
    """The parts of k are added in their order, whichever was ready first."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) + tl.arange(0, 1)
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    total = tl.zeros((BLOCK_N, 1), tl.float32)
    for split in range(SPLITS):
        part = tl.cast(split, tl.int64) * m + tokens
        total += tl.load(parts + part[None, :] * n + rows[:, None], mask=there, other=0.0)
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)


@triton.jit
def linear_row(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times one token, without matrix instructions; k is split in SPLITS."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1)
    inside = rows < n
    x_row = x + token.to(tl.int64) * x_stride
    total = tl.zeros((BLOCK_N, 128), tl.float32)
    tiles = tl.cdiv(k, 128)
    share = tl.cdiv(tiles, SPLITS)
    begin = tl.program_id(2) * share
    for tile in range(begin, tl.minimum(begin + share, tiles)):
        columns = tile * 128 + tl.arange(0, 128)
        activations = tl.load(x_row + columns, mask=columns < k, other=0.0)
        w = load_weight(weight, rows, inside, tile, n, k)
        total += w.to(tl.float32) * activations.to(tl.float32)[None, :]
    tokens = token + tl.arange(0, 1)
    total = tl.sum(total, 1)[:, None]
    if SPLITS == 1:
        finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
    else:
        store_part(total, y, rows, tokens, m, n)


@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times BLOCK_M tokens, y^T = W x^T; k is split in SPLITS.

    W is the first operand: on sm_90 it then goes from registers to the matrix instruction.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n
    x_rows = x + tokens.to(tl.int64) * x_stride
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    tiles = tl.cdiv(k, 128)
    share = tl.cdiv(tiles, SPLITS)
    begin = tl.program_id(2) * share
    for tile in range(begin, tl.minimum(begin + share, tiles)):
        columns = tile * 128 + tl.arange(0, 128)
        there = (columns < k)[:, None] & (tokens < m)[None, :]
        activations = tl.load(x_rows[None, :] + columns[:, None], mask=there, other=0.0)
        w = load_weight(weight, rows, inside, tile, n, k)
        total = tl.dot(w, activations, total)
    if SPLITS == 1:
        finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
    else:
        store_part(total, y, rows, tokens, m, n)


@triton.jit
def unpack(weight, dense, first, count, k, BLOCK_N: tl.constexpr):
    """`count` rows of W from `first` on, `[count, k]`, with their scales."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, inside = first + places, places < count
    tile = tl.program_id(1)
    columns = tile * 128 + tl.arange(0, 128)
    value = load_tile(weight, rows, inside, tile, n, k)
    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
