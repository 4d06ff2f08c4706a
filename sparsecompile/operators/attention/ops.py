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

Masks that are returned are uint8: on CPUs `[HEADER_BYTES]`, views of all of the layout; on GPUs the
layout, `[most_bytes(batch, heads, q, kv)]`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sparsecompile.kernels.ops import define
from sparsecompile.masks.block_mask import HEADER_BYTES, TILE


def most_bytes(batch: int, heads: int, queries: int, keys: int) -> int:
    """Bytes of a `BlockMask`'s layout where every tile is kept, and has bits.

    GPUs give every layout as many: how many it takes nobody waits for.
    """
    rows, columns = batch * heads * -(-queries // TILE), -(-keys // TILE)
    lists = [-(-4 * (length + 1) // 64) * 64 for length in (rows, rows * columns, rows * columns)]
    return HEADER_BYTES + sum(lists) + 8 * TILE * rows * columns


def shape_of_intervals(
    low: Tensor, keep: Tensor | None, q_ids: Tensor | None, keys: int
) -> tuple[int, int, int, int]:
    """The shape of the mask that `interval_mask` is given."""
    batches = [(t.shape[0],) for t in (low, keep, q_ids) if t is not None]
    (batch,) = torch.broadcast_shapes(*batches)
    return batch, low.shape[1], low.shape[2], keys


def _fake_layout(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A view of the header on CPUs, whose ops read the memory behind it; all of it on GPUs."""
    size = HEADER_BYTES if like.device.type == "cpu" else most_bytes(*shape)
    return like.new_empty((size,), dtype=torch.uint8)


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
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Tensor:
    batch, heads, length, _ = q.shape
    return q.new_empty((batch, length, heads, v.shape[3])).transpose(1, 2)


@define
def _scan_mask(mask: Tensor) -> Tensor:
    return _fake_layout(mask, tuple(mask.shape))


@partial(define, number="SymInt")
def _interval_mask(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    q_ids: Tensor | None,
    kv_ids: Tensor | None,
    kv: int,
) -> Tensor:
    return _fake_layout(low, shape_of_intervals(low, keep, q_ids, kv))
