"""linear bitmap/float float16 add

template: scattered; target: cuda sm_90
schedule: few_m=16 few_n=32 few_warps=4 many_m=64 many_n=64 many_warps=8 programs=264 row_n=16
row_warps=4 some_m=64 some_n=64 some_warps=8 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear_row, 16 x 1 (n x m), 4 warps, 3 stages, k split up to 264 programs
few: m <= 16, linear, 32 x 16 (n x m), 4 warps, 3 stages, k split up to 264 programs
some: m <= 128, linear, 64 x 64 (n x m), 8 warps, 3 stages, k split up to 264 programs
many: any m, linear, 64 x 64 (n x m), 8 warps, 3 stages

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
def starts_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    tiles = tl.cdiv(k, 128)
    size = rows * tiles * 16
    return words_part(weight, n, k) + (size + 15) // 16 * 16


@triton.jit
def values_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    tiles = tl.cdiv(k, 128)
    size = rows * tiles * 4
    return starts_part(weight, n, k) + (size + 15) // 16 * 16


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


# bitmap: a bit a column, 4 words a tile, and the slot in which each tile begins.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, 128]`, a load for every value."""
    at = rows.to(tl.int64) * tl.cdiv(k, 128) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * 4 + tl.arange(0, 4)[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    bits = (word[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1
    kept = bits.reshape(rows.shape[0], 128)
    starts = starts_part(weight, n, k).to(tl.pointer_type(tl.int32))
    start = tl.load(starts + at, mask=inside, other=0)
    # A kept column's slot comes after those of the kept columns before it.
    slots = start[:, None] + tl.cumsum(kept, 1) - kept
    return values_at(values_part(weight, n, k), slots, kept != 0)


@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]
    operand0_here = tl.load(operand0 + at, mask=there, other=0.0).to(tl.float32)
    value = value + operand0_here  # add
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
