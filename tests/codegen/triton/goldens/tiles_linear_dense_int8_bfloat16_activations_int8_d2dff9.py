"""linear dense/int8 bfloat16 activations=int8

template: tiles; target: cuda sm_90
schedule: few_m=16 few_n=64 few_warps=4 many_m=64 many_n=128 many_warps=8 programs=264 row_n=16
row_warps=4 some_m=64 some_n=64 some_warps=8 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear_row, 16 x 1 (n x m), 4 warps, 3 stages, k split up to 264 programs
few: m <= 16, linear, 64 x 16 (n x m), 4 warps, 3 stages, k split up to 264 programs
some: m <= 128, linear, 64 x 64 (n x m), 8 warps, 3 stages, k split up to 264 programs
many: any m, linear, 128 x 64 (n x m), 8 warps, 3 stages

What is launched takes x `[m, k]` as integers, with a scale a row in x_scales `[m]`, its rows
x_stride apart; weight, a layout, as bytes; bias `[n]` and operands of the epilogue `[m, n]`, or
None; and y `[m, n]`; where k is split, sums over its parts `[SPLITS, m, n]`, which `add_parts`
adds.
"""

import triton
import triton.language as tl


# Where the parts of the layout begin; each at a multiple of 16 bytes. A header of 128
# bytes comes first: n, k and the number of values that are stored, int64.
@triton.jit
def scales_part(weight, n, k):
    return weight + 128


@triton.jit
def values_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    size = rows * 1 * 2
    return scales_part(weight, n, k) + (size + 15) // 16 * 16


# int8: an integer a byte.
@triton.jit
def values_at(values, slots, there):
    """Integers in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.int8)) + slots, mask=there, other=0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])


# dense: every value, rows padded with zeros to whole tiles.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, 128]`."""
    first = (rows.to(tl.int64) * tl.cdiv(k, 128) + tile) * 128
    return values_in(values_part(weight, n, k), first, inside, 128)


@triton.jit
def row_scales(weight, rows, inside, n, k):
    """The scale of every row: bfloat16 is the upper half of float32."""
    scales = scales_part(weight, n, k).to(tl.pointer_type(tl.int16))
    found = tl.load(scales + rows, mask=inside, other=0)
    return (found.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
    value *= row_scales(weight, rows, rows < n, n, k)[:, None]
    value *= tl.load(x_scales + tokens, mask=tokens < m, other=0.0)[None, :]
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]
    tl.store(y + at, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def round_activations(x, rounded, x_scales, k, x_stride, BLOCK: tl.constexpr):
    """A row of x as integers of -127 to 127 times one scale; NaN where it is not all finite."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, k, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < k, other=0.0).to(tl.float32)
        finite = value - value == 0.0
        largest = tl.maximum(largest, tl.where(finite, tl.abs(value), float("inf")))
    scale = tl.div_rn(tl.max(largest, 0), 127.0)
    # Below the smallest normal float32 everything is rounded to zero.
    scale = tl.where(scale < 1.1754943508222875e-38, 1.0, scale)
    is_finite = scale - scale == 0.0
    tl.store(x_scales + row, tl.where(is_finite, scale, float("nan")))
    for first in range(0, k, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < k, other=0.0).to(tl.float32)
        quotient = tl.div_rn(value, tl.zeros((BLOCK,), tl.float32) + scale)
        # Adding 1.5 * 2**23 leaves no bits for a fraction: to nearest, ties to even.
        integer = (quotient + 12582912.0) - 12582912.0
        integer = tl.where(is_finite, integer, 0.0)
        tl.store(rounded + row * k + columns, integer.to(tl.int8), mask=columns < k)


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
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
    tiles = tl.cdiv(k, 128)
    share = tl.cdiv(tiles, SPLITS)
    begin = tl.program_id(2) * share
    for tile in range(begin, tl.minimum(begin + share, tiles)):
        columns = tile * 128 + tl.arange(0, 128)
        there = (columns < k)[:, None] & (tokens < m)[None, :]
        activations = tl.load(x_rows[None, :] + columns[:, None], mask=there, other=0.0)
        w = load_weight(weight, rows, inside, tile, n, k)
        total = tl.dot(w, activations, total, out_dtype=tl.int32)
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
    scales = row_scales(weight, rows, inside, n, k)[:, None]
    value = value.to(tl.float32) * scales
    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
