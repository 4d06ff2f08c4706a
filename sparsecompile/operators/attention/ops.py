"""The torch ops of attention: schemas and fakes; the native library has them for CPUs.

`attention(q, k, v, mask, bias, scale, softcap, kernel)`: `q` `[b, h, s, d]`, `k` `[b, hk, t, d]`,
`v` `[b, hk, t, dv]`, float32, bfloat16 or float16; `mask` uint8, the layout of a `BlockMask` or a
view of its first `HEADER_BYTES` (the op reads the storage behind it), None where every query
attends to every key; `bias` `[b|1, h|1, s|1, t|1]` of any of these dtypes, added to the scores of
tiles that are `BIASED`, to all where there is no mask; `softcap` 0 where there is none; `kernel` a
`Kernel.key`. Returns `[b, h, s, dv]` in q's dtype, of which `.transpose(1, 2)` is contiguous.

`scan_mask(mask)`: the layout of the `BlockMask` of `mask` `[b|1, h|1, q, kv]`, bool or what is
added to scores: there exactly 0 counts as it is, what is at most -60000 does not, and a tile with
anything else is `BIASED`. So are all tiles of a row where some query has no key with exactly 0: of
finite numbers alone the softmax is what it is, however small they are.

`interval_mask(low, high, keep, q_ids, kv_ids, kv)`: the layout of the `BlockMask` where `low <=
key < high`, `keep[key]` and `q_ids[query] == kv_ids[key]`: `low` and `high` `[b|1, h|1, q]` int32,
`keep` `[b|1, kv]` bool, ids `[b|1, q]` and `[b|1, kv]` int64, or None.

Masks that are returned are `[HEADER_BYTES]` uint8, views of all of the layout.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sparsecompile.kernels.ops import define
from sparsecompile.masks.block_mask import HEADER_BYTES


@define
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    softcap: float,
    kernel: int,
) -> Tensor:
    batch, heads, length, _ = q.shape
    return q.new_empty((batch, length, heads, v.shape[3])).transpose(1, 2)


@define
def _scan_mask(mask: Tensor) -> Tensor:
    return mask.new_empty((HEADER_BYTES,), dtype=torch.uint8)


@partial(define, number="SymInt")
def _interval_mask(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    q_ids: Tensor | None,
    kv_ids: Tensor | None,
    kv: int,
) -> Tensor:
    return low.new_empty((HEADER_BYTES,), dtype=torch.uint8)
