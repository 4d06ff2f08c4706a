"""`float`: values as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places

if TYPE_CHECKING:
    import sympy


class Float(Codec):
    """float32, bfloat16 or float16 values in the weight's own dtype.

    Value tensors: `values` `[slots]`.
    """

    family = "float"
    lossless = True

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """The values."""
        return {"values": values}

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """The values."""
        return tensors["values"].to(dtype)

    def take(self, tensors: Mapping[str, Tensor], slots: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """The values."""
        return {"values": tensors["values"][slots]}

    def coding(self, dtype: torch.dtype) -> Coding:
        """The value."""
        return Coding(8 * dtype.itemsize)

    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """16 or 32 bits a slot."""
        from sparsecompile.formats.symbols import slots

        return dtype.itemsize * 8 * slots


COMPONENTS = (Float(),)
