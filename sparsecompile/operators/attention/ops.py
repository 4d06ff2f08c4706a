"""The torch ops of attention: schemas and fakes; a native library implements them."""

from __future__ import annotations

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
    batch, heads, queries, _ = q.shape
    return q.new_empty((batch, queries, heads, v.shape[3])).transpose(1, 2)


@define
def _scan_mask(mask: Tensor) -> Tensor:
    return mask.new_empty(HEADER_BYTES, dtype=torch.uint8)


@define
def _interval_mask(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    q_ids: Tensor | None,
    kv_ids: Tensor | None,
    kv: int,
) -> Tensor:
    return low.new_empty(HEADER_BYTES, dtype=torch.uint8)
