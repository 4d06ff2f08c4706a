"""`bitmap`: unstructured, one bit a weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.bits import pack_bits, unpack_bits
from sparsecompile.structures.csr import (
    check_offsets,
    row_offsets,
    take_stretches,
    unstructured_mask,
)

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

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A row of bits and a stretch of values a row."""
        offsets, slots = take_stretches(index["row_offsets"], groups)
        return {"bits": index["bits"][groups], "row_offsets": offsets}, slots

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if the offsets count the bits, and none stands behind the last column.

        Raises:
            Reject: they do not.
        """
        (n, k), bits, offsets = shape, index["bits"], index["row_offsets"]
        check_offsets("row_offsets", offsets, n, slots)
        if bits.shape != (n, -(-k // 8)):
            raise Reject(f"bits has shape {tuple(bits.shape)}, [{n}, {-(-k // 8)}] is needed")
        if k % 8 and bool((bits[:, -1] >> k % 8).any()):
            raise Reject(f"bits has some set behind column {k - 1}")
        counts = torch.zeros(n, dtype=torch.int64)
        for bit in range(8):
            counts += (bits >> bit & 1).sum(1)
        if not torch.equal(counts, offsets.diff().long()):
            raise Reject("bits has other counts than row_offsets")

    def index_bits(self) -> sympy.Expr:
        """One bit a weight, rows padded to bytes, and an int32 a row."""
        import sympy

        from sparsecompile.formats.symbols import k, n

        return 8 * n * sympy.ceiling(k / 8) + 32 * (n + 1)

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Cut the given share of smallest magnitudes of the whole weight."""
        return unstructured_mask(weight, sparsity)


COMPONENTS = (Bitmap(),)
