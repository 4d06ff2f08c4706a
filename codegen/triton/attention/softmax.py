"""Triton of what both loops of attention share: rows of tensors, scores, the online softmax."""

from __future__ import annotations

TEXT = '''\
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
'''
