"""linear csr/float float32 relu

template: rows; target: cuda sm_90
schedule: row_n=4 row_warps=4 some_m=8 some_n=4 some_warps=4 stages=2
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear, 4 x 1 (n x m), 4 warps, 2 stages
some: any m, linear, 4 x 8 (n x m), 4 warps, 2 stages

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
    size = (rows + 1) * 4
    return crow_part(weight, n, k) + (size + 15) // 16 * 16


@triton.jit
def values_part(weight, n, k):
    size = entry_of(crow_part(weight, n, k), n) * 4
    return col_part(weight, n, k) + (size + 15) // 16 * 16


# float: values as they are.
@triton.jit
def values_at(values, slots, there):
    """Values in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.float32)) + slots, mask=there, other=0.0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])


# csr: slots crow[r] .. crow[r + 1] of row r; col[slot] is a slot's column.


@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]
    value = tl.where(value < 0.0, 0.0, value)  # relu
    tl.store(y + at, value.to(y.dtype.element_ty), mask=there)


@triton.jit
def load_slots(weight, rows, slots, there, n, k):
    """Column and value of some slots of some rows."""
    col = col_part(weight, n, k).to(tl.pointer_type(tl.int32))
    columns = tl.load(col + slots, mask=there, other=0)
    value = values_at(values_part(weight, n, k), slots, there)
    return columns, value


@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times BLOCK_M tokens: 64 kept columns of every row a pass."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_rows = x + tokens.to(tl.int64) * x_stride
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begin = tl.load(crow + rows, mask=rows < n, other=0)
    end = tl.load(crow + rows + 1, mask=rows < n, other=0)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for first in range(0, tl.max(end - begin, 0), 64):
        slots = (begin + first)[:, None] + tl.arange(0, 64)[None, :]
        kept = slots < end[:, None]
        columns, w = load_slots(weight, rows, slots, kept, n, k)
        there = kept[:, :, None] & (tokens < m)[None, None, :]
        places = x_rows[None, None, :] + columns[:, :, None]
        activations = tl.load(places, mask=there, other=0.0).to(tl.float32)
        total += tl.sum(w.to(tl.float32)[:, :, None] * activations, 1)
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)


@triton.jit
def unpack(weight, dense, first_row, row_count, k, BLOCK_N: tl.constexpr):
    """`row_count` rows of W from `first_row` on, `[row_count, k]`; dense holds zeros before."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = first_row + places
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begin = tl.load(crow + rows, mask=places < row_count, other=0)
    end = tl.load(crow + rows + 1, mask=places < row_count, other=0)
    step = tl.num_programs(1) * 64
    for first in range(tl.program_id(1) * 64, tl.max(end - begin, 0), step):
        slots = (begin + first)[:, None] + tl.arange(0, 64)[None, :]
        kept = slots < end[:, None]
        columns, value = load_slots(weight, rows, slots, kept, n, k)
        at = places.to(tl.int64)[:, None] * k + columns
        tl.store(dense + at, value.to(dense.dtype.element_ty), mask=kept)
