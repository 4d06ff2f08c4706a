"""linear n_m[2:4]/float float16 silu mul

template: tiles; target: cuda sm_90
schedule: few_m=16 few_n=64 few_warps=4 many_m=64 many_n=128 many_warps=8 programs=264 row_n=16
row_warps=4 some_m=64 some_n=64 some_warps=4 stages=3
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
row: m <= 1, linear_row, 16 x 1 (n x m), 4 warps, 3 stages, k split up to 264 programs
few: m <= 16, linear, 64 x 16 (n x m), 4 warps, 3 stages, k split up to 264 programs
some: m <= 128, linear, 64 x 64 (n x m), 4 warps, 3 stages, k split up to 264 programs
... 14 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
def words_part(weight, n, k):
... 6 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    tiles = tl.cdiv(k, 128)
    size = rows * tiles * 16
    return words_part(weight, n, k) + (size + 15) // 16 * 16


# float: values as they are.
@triton.jit
def values_at(values, slots, there):
    """Values in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.float16)) + slots, mask=there, other=0.0)
... 5 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])


# n_m[2:4]: the code of a group is the positions of its kept values, the first lowest.
# Of a tile of 128 columns a row holds the first kept value of every group, then every second
# one, ...; the codes of its 32 groups are in 4 words: word w has those of the groups
# w, w + 4, w + 8, ..., 4 bits each, the first lowest.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, 128]`, put together in registers."""
    at = rows.to(tl.int64) * tl.cdiv(k, 128) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * 4 + tl.arange(0, 4)[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    code = word[:, None, :] >> (tl.arange(0, 8) * 4)[None, :, None]
    code = code.reshape(rows.shape[0], 32)
    values = values_part(weight, n, k)
    v0 = values_in(values, at * 64, inside, 32)
    v1 = values_in(values, at * 64 + 32, inside, 32)
    zero = tl.zeros_like(v0)
    # c0 ... c3: the columns of each group, a kept value or zero.
    # p0, p1: the position in its group of each kept value.
    p0 = code & 3
    p1 = (code >> 2) & 3
    c0 = tl.where(p0 == 0, v0, zero)
    c1 = tl.where(p0 == 1, v0, tl.where(p1 == 1, v1, zero))
    c2 = tl.where(p0 == 2, v0, tl.where(p1 == 2, v1, zero))
    c3 = tl.where(p1 == 3, v1, zero)
    # A join adds a dimension, the innermost one: c0, c1, ... end up side by side.
    tile_of_rows = tl.join(tl.join(c0, c2), tl.join(c1, c3))
    return tile_of_rows.reshape(rows.shape[0], 128)
... 10 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    value = value * tl.sigmoid(value)  # silu
    operand0_here = tl.load(operand0 + at, mask=there, other=0.0).to(tl.float32)
    value = value * operand0_here  # mul
... 7 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    return value
... 91 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
