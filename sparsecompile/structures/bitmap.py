"""`bitmap`: unstructured, one bit a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.occupancy import Occupancy
from sparsecompile.packed import Structure
from sparsecompile.structures.bits import pack_bits, unpack_bits
from sparsecompile.structures.csr import row_offsets, unstructured_mask

if TYPE_CHECKING:
    import sympy


class Bitmap(Structure):
    """A bit for every weight, the kept values row by row.

    Index tensors: `bits` `[n, ceil(k / 8)]` uint8, column `c` of a row in bit `c % 8` of byte
    `c // 8`; `row_offsets` `[n + 1]` int32, where each row's values begin.
    `dense[bits.bool()] = values`. As in SparAMX (arXiv 2502.12444) and SpInfer (EuroSys 2025).
    """

    family = "bitmap"

    def find(self, weight: Occupancy) -> int:
        """The number of values that are not zero; fits every weight."""
        return weight.kept

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """`bits` and `row_offsets`."""
        return {"bits": pack_bits(weight.mask), "row_offsets": row_offsets(weight.mask)}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Places of the set bits in row-major order."""
        return unpack_bits(index["bits"], shape[1]).reshape(-1).nonzero().squeeze(1)

    def gather(self, weight: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """`weight[bits]`, without the list of places."""
        return torch.masked_select(weight, unpack_bits(index["bits"], weight.shape[1]))

    def index_bits(self) -> sympy.Expr:
        """One bit a weight, rows padded to bytes, and an int32 a row."""
        import sympy

        from sparsecompile.costs import k, n

        return 8 * n * sympy.ceiling(k / 8) + 32 * (n + 1)

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Cut the given share of smallest magnitudes of the whole weight."""
        return unstructured_mask(weight, sparsity)


COMPONENTS = (Bitmap(),)
