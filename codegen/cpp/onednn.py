"""OneDnn: dense weights in oneDNN's own order, which torch uses only for frozen models."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.layout import lay_out
from sparsecompile.codegen.cpp.native import DTYPES
from sparsecompile.kernels.dense_copy import DenseCopy

LAYOUTS = {dtype: 1 + number for dtype, number in DTYPES.items()}
"""Numbers of the layouts, which `text/native/onednn.h` knows too."""
ROWS = 128
"""The m that the order is asked for; others are hardly slower with it than with their own."""


@dataclass(frozen=True)
class OneDnn(DenseCopy):
    """Blocks of rows and columns, as oneDNN's matrix products read them.

    `torch.ops.mkldnn._reorder_linear_weight` makes them; the copy is its bytes behind what oneDNN
    needs to know of their order.
    """

    name = "onednn"

    def make(self, weight: Tensor) -> Tensor:
        """A layout of two tensors: the order, and the values in it."""
        n, k = weight.shape
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        order = torch.ops.mkldnn._get_mkldnn_serialized_md(ordered)
        nbytes = torch.ops.mkldnn._nbytes(ordered)
        memory = (ctypes.c_uint8 * nbytes).from_address(torch.ops.mkldnn.data_ptr(ordered))
        values = torch.frombuffer(memory, dtype=torch.uint8)
        layout = LAYOUTS[weight.dtype]
        return lay_out(layout, (n, k), order.numel(), (order.view(torch.uint8), values))

    @property
    def op(self) -> Any:
        """`sparsecompile::dense_linear`."""
        return torch.ops.sparsecompile.dense_linear.default


@cache
def onednn_for(dtype: torch.dtype) -> OneDnn | None:
    """None where torch has no oneDNN, or oneDNN nothing for this dtype on this CPU."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "data_ptr"):
        return None
    x = torch.ones(1, 16, dtype=dtype)
    try:
        ordered = torch.ops.mkldnn._reorder_linear_weight(x, ROWS)
        torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", [], "")
    except RuntimeError:
        # bfloat16 and float16 need instructions of their own.
        return None
    return OneDnn()
