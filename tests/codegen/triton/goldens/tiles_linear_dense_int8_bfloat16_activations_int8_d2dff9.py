"""linear dense/int8 bfloat16 activations=int8
... 10 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
What is launched takes x `[m, k]` as integers, with a scale a row in x_scales `[m]`, its rows
x_stride apart; weight, a layout, as bytes; bias `[n]` and operands of the epilogue `[m, n]`, or
None; and y `[m, n]`; where k is split, sums over its parts `[SPLITS, m, n]`, which `add_parts`
adds.
... 16 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    size = rows * 1 * 2
    return scales_part(weight, n, k) + (size + 15) // 16 * 16


# int8: an integer a byte.
@triton.jit
def values_at(values, slots, there):
    """Integers in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.int8)) + slots, mask=there, other=0)
... 5 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])
... 11 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
def row_scales(weight, rows, inside, n, k):
    """The scale of every row: bfloat16 is the upper half of float32."""
    scales = scales_part(weight, n, k).to(tl.pointer_type(tl.int16))
    found = tl.load(scales + rows, mask=inside, other=0)
    return (found.to(tl.int32) << 16).to(tl.float32, bitcast=True)
... 8 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    value *= row_scales(weight, rows, rows < n, n, k)[:, None]
    value *= tl.load(x_scales + tokens, mask=tokens < m, other=0.0)[None, :]
... 6 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
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
... 66 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
... 8 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
        total = tl.dot(w, activations, total, out_dtype=tl.int32)
... 15 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    scales = row_scales(weight, rows, inside, n, k)[:, None]
... 4 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
