"""What attention has to move and compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from sparsecompile.operators.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

SCALES = 2 * 4
"""Bytes of the scales of a key and its value, in float32."""


def cost_of(spec: AttentionSpec, sizes: Mapping[str, int], share: float) -> Cost:
    """What attention with `m` queries a batch entry has to move and compute.

    Args:
        spec: what it computes.
        sizes: `batch`, `heads` and `keys`.
        share: of the keys that are read.
    """
    # sympy takes a third of a second to import, and not everyone measures.
    from sparsecompile.formats.symbols import m
    from sparsecompile.kernels.cost import Cost

    heads, width = sizes["batch"] * sizes["heads"], spec.head_dim + spec.value_dim
    keys = sizes["keys"] * share
    nbytes = heads * width * m * spec.dtype.itemsize
    stored = (spec.kv_dtype or spec.dtype).itemsize
    nbytes += heads / spec.groups * keys * (width * stored + (SCALES if spec.kv_dtype else 0))
    kind = "bfloat16" if spec.dtype == torch.bfloat16 else "float32"
    return Cost(nbytes, 2 * m * heads * keys * width, kind)
