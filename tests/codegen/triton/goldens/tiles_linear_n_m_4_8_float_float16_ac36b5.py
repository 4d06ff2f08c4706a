"""linear n_m[4:8]/float float16

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
... 17 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    return value
... 91 lines as in tiles_linear_dense_int4_group_128_bfloat16_d2dff9.py ...
    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
