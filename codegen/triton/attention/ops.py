"""The torch ops of attention on GPUs: `attention`, `scan_mask` and `interval_mask`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.attention import block_masks
from sparsecompile.codegen.triton.attention.start import start_attention
from sparsecompile.codegen.triton.compiled import kept_here
from sparsecompile.codegen.triton.kernel import find_kernel
from sparsecompile.codegen.triton.start import FUSION

Optional = Tensor | None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Optional,
    bias: Optional,
    scale: float,
    softcap: float,
    kernel: int,
    k_scale: Optional = None,
    v_scale: Optional = None,
) -> Tensor:
    """See `start_attention`."""
    found: Any = find_kernel(kernel)
    # Triton starts functions on the current device.
    with torch.cuda.device(q.device), kept_here():
        scales = (k_scale, v_scale)
        return start_attention(found, q, k, v, mask, bias, scale, softcap, FUSION, *scales)


def scan_mask(mask: Tensor) -> Tensor:
    """See `block_masks.scan_mask`."""
    with torch.cuda.device(mask.device), kept_here():
        return block_masks.scan_mask(mask, FUSION)


def interval_mask(
    low: Tensor, high: Tensor, keep: Optional, q_ids: Optional, kv_ids: Optional, kv: int
) -> Tensor:
    """See `block_masks.interval_mask`."""
    with torch.cuda.device(low.device), kept_here():
        return block_masks.interval_mask(low, high, keep, q_ids, kv_ids, kv, FUSION)


def implement(library: torch.library.Library) -> None:
    """Make them known to torch."""
    for function in (attention, scan_mask, interval_mask):
        library.impl(function.__name__, function, "CUDA")
