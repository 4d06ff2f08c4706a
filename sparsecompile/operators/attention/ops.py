"""The torch ops of attention: schemas and fakes; a native library implements them."""

from __future__ import annotations

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
    _, heads, queries = low.shape
    widest = keep if keep is not None else q_ids if q_ids is not None else low
    return widest.shape[0], heads, queries, keys


def _fake_layout(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A view of the header on CPUs, whose ops read the memory behind it; all of it on GPUs."""
    size = HEADER_BYTES if like.device.type == "cpu" else most_bytes(*shape)
    return like.new_empty(size, dtype=torch.uint8)


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
    batch, heads, queries, _ = q.shape
    return q.new_empty((batch, queries, heads, v.shape[3])).transpose(1, 2)


@define
def _scan_mask(mask: Tensor) -> Tensor:
    return _fake_layout(mask, tuple(mask.shape))


@define
def _interval_mask(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    q_ids: Tensor | None,
    kv_ids: Tensor | None,
    kv: int,
) -> Tensor:
    return _fake_layout(low, shape_of_intervals(low, keep, q_ids, kv))
