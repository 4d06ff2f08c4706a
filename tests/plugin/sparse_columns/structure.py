"""`columns`: whole columns of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor

from sparsecompile import Occupancy, Reject, Structure
from sparsecompile.formats.symbols import n, slots


@dataclass(frozen=True)
class Columns(Structure):
    """The kept columns of every row: `dense[:, kept] = values.view(n, -1)`.

    Index tensors: `kept` int32, the columns that hold a value, ascending.
    """

    family = "columns"

    def find(self, weight: Occupancy) -> int:
        """All values of the kept columns.

        Raises:
            Reject: every column is kept.
        """
        kept = int(weight.mask.any(0).sum())
        if kept == weight.shape[1]:
            raise Reject(f"none of the {kept} columns is zero")
        return kept * weight.shape[0]

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """`kept`."""
        return {"kept": weight.mask.any(0).nonzero().squeeze(1).to(torch.int32)}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """`row * k + column`."""
        return (torch.arange(shape[0])[:, None] * shape[1] + index["kept"].long()).reshape(-1)

    def index_bits(self) -> sympy.Expr:
        """An int32 a kept column; a weight without rows keeps none."""
        return 32 * slots / sympy.Max(n, 1)


COMPONENTS = (Columns(),)
