"""linear dense/int4[group=128] bfloat16

template: tiles; target: cuda sm_90
schedule: few_m=16 few_n=64 few_warps=4 many_m=64 many_n=128 many_warps=8 programs=264 row_n=16
row_warps=4 some_m=64 some_n=64 some_warps=8 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear_row, 16 x 1 (n x m), 4 warps, 3 stages, k split up to 264 programs
few: m <= 16, linear, 64 x 16 (n x m), 4 warps, 3 stages, k split up to 264 programs
some: m <= 128, linear, 64 x 64 (n x m), 8 warps, 3 stages, k split up to 264 programs
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
def scales_part(weight, n, k):
    return weight + 128


@triton.jit
def values_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    size = rows * tl.cdiv(k, 128) * 2
    return scales_part(weight, n, k) + (size + 15) // 16 * 16


# int4[group=128]: two integers a byte, the first in the lower half, as integer + 8.
@triton.jit
def values_at(values, slots, there):
    """Integers in any slots."""
    byte = tl.load(values + slots // 2, mask=there, other=0x88)
    code = (byte >> ((slots % 2) * 4).to(tl.uint8)) & 15
    return code.to(tl.int8) - 8


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    at = (first // 2)[:, None] + tl.arange(0, COUNT // 2)[None, :]
    byte = tl.load(values + at, mask=there[:, None], other=0x88)
    low = (byte & 15).to(tl.int8) - 8
    high = (byte >> 4).to(tl.int8) - 8
    return tl.join(low, high).reshape(first.shape[0], COUNT)


# dense: every value, rows padded with zeros to whole tiles.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, 128]`."""
    first = (rows.to(tl.int64) * tl.cdiv(k, 128) + tile) * 128
    return values_in(values_part(weight, n, k), first, inside, 128)


@triton.jit
def scales_at(weight, rows, columns, there, n, k):
    """The scales of 128 columns each: bfloat16 is the upper half of float32."""
    scales = scales_part(weight, n, k).to(tl.pointer_type(tl.int16))
    group, groups = columns // 128, tl.cdiv(k, 128)
    at = rows.to(tl.int64) * groups + group
    found = tl.load(scales + at, mask=there & (group < groups), other=0)
    return (found.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def scales_in(weight, rows, inside, first, n, k, COUNT: tl.constexpr):
    """The scales of COUNT columns from `first` on: `[rows, COUNT]`, or `[rows, 1]` for all."""
    if 128 % COUNT == 0:
        columns = first + tl.zeros((1, 1), tl.int32)
        return scales_at(weight, rows[:, None], columns, inside[:, None], n, k)
    elif COUNT % 128 == 0:
        columns = first + tl.arange(0, COUNT // 128)[None, :] * 128
        scales = scales_at(weight, rows[:, None], columns, inside[:, None], n, k)
        wide = tl.broadcast_to(scales[:, :, None], (rows.shape[0], COUNT // 128, 128))
        return wide.reshape(rows.shape[0], COUNT)
    else:
        columns = first + tl.arange(0, COUNT)[None, :]
        return scales_at(weight, rows[:, None], columns, inside[:, None], n, k)


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
    scales = scales_in(weight, rows, inside, tile * 128, n, k, 128)
    value = value.to(tl.float32) * scales
    return value.to(tl.bfloat16)


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
    scales = scales_in(weight, rows, inside, tile * 128, n, k, 128)
    value = value.to(tl.float32) * scales
    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
