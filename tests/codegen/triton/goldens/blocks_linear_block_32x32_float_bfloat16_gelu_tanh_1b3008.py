"""linear block[32x32]/float bfloat16 gelu_tanh

template: blocks; target: cuda sm_90
schedule: few_m=16 few_warps=4 many_m=64 many_warps=4 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
few: m <= 16, linear, 32 x 16 (n x m), 4 warps, 3 stages
many: any m, linear, 32 x 64 (n x m), 4 warps, 3 stages

What is launched takes x `[m, k]`, its rows x_stride apart; weight, a layout, as bytes; bias `[n]`
and operands of the epilogue `[m, n]`, or None; and y `[m, n]`.
"""

import triton
import triton.language as tl


# Where the parts of the layout begin; each at a multiple of 16 bytes. A header of 128
# bytes comes first: n, k and the number of values that are stored, int64.
@triton.jit
def crow_part(weight, n, k):
    return weight + 128


@triton.jit
def entry_of(part, at):
    return tl.load(part.to(tl.pointer_type(tl.int32)) + at).to(tl.int64)


@triton.jit
def col_part(weight, n, k):
    rows = tl.cast(n, tl.int64)
    size = (tl.cdiv(rows, 32) + 1) * 4
    return crow_part(weight, n, k) + (size + 15) // 16 * 16


@triton.jit
def values_part(weight, n, k):
    size = entry_of(crow_part(weight, n, k), tl.cdiv(n, 32)) * 4
    return col_part(weight, n, k) + (size + 15) // 16 * 16


# float: values as they are.
@triton.jit
def values_at(values, slots, there):
    """Values in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.bfloat16)) + slots, mask=there, other=0.0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])


# block[32x32]: blocks crow[b] .. crow[b + 1] of band b; col is in blocks.


@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]
    value = value * tl.sigmoid(value * (1.5957691216 + 0.0713548163 * value * value))  # gelu_tanh
    tl.store(y + at, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def band_rows(band, n):
    """Rows of W of a band of blocks: `[32]`."""
    return band * 32 + tl.arange(0, 32)


@triton.jit
def blocks_of_columns(block, last):
    """Which block each column of a pass is of, from `block` on: `[64]`."""
    return block + tl.arange(0, 64) // 32


@triton.jit
def load_columns(weight, at, last, n, k):
    """Columns of the blocks `at`, `[64]`: whole blocks, so that x is read in stretches."""
    col = col_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begins = tl.load(col + at, mask=at < last, other=0) * 32
    columns = begins + tl.arange(0, 64) % 32
    return tl.max_contiguous(tl.multiple_of(columns, 32), 32)


@triton.jit
def load_blocks(weight, at, last, n, k):
    """The same blocks side by side: `[32, 64]`."""
    slots = at.to(tl.int64) * 1024 + tl.arange(0, 64) % 32
    slots = slots[None, :] + tl.arange(0, 32)[:, None] * 32
    there = (at < last)[None, :]
    return values_at(values_part(weight, n, k), slots, there)


@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """A band of blocks times BLOCK_M tokens, y^T = W x^T: 2 kept blocks a pass."""
    band = tl.program_id(0)
    rows = band_rows(band, n)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_rows = x + tokens.to(tl.int64) * x_stride
    total = tl.zeros((32, BLOCK_M), tl.float32)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    for block in range(first, last, 2):
        at = blocks_of_columns(block, last)
        columns = load_columns(weight, at, last, n, k)
        kept = (at < last) & (columns < k)
        there = kept[:, None] & (tokens < m)[None, :]
        activations = tl.load(x_rows[None, :] + columns[:, None], mask=there, other=0.0)
        value = load_blocks(weight, at, last, n, k)
        total = tl.dot(value, activations, total)
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)


@triton.jit
def unpack(weight, dense, first_row, row_count, k, BLOCK_N: tl.constexpr):
    """`row_count` rows of W from `first_row` on, `[row_count, k]`; dense holds zeros before."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    band = first_row // 32 + tl.program_id(0)
    rows = band_rows(band, n)
    places = rows - first_row
    inside = (places >= 0) & (places < row_count)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    step = tl.num_programs(1) * 2
    for block in range(first + tl.program_id(1) * 2, last, step):
        at = blocks_of_columns(block, last)
        columns = load_columns(weight, at, last, n, k)
        value = load_blocks(weight, at, last, n, k)
        there = inside[:, None] & ((at < last) & (columns < k))[None, :]
        to = places.to(tl.int64)[:, None] * k + columns[None, :]
        tl.store(dense + to, value.to(dense.dtype.element_ty), mask=there)
