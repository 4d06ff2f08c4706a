"""`csr`: unstructured, one column index a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.occupancy import Occupancy
from sparsecompile.packed import Structure

if TYPE_CHECKING:
    import sympy


class CSR(Structure):
    """Compressed sparse rows, the tensors of `torch.sparse_csr_tensor`.

    Index tensors: `crow` `[n + 1]` int32, where each row begins; `col` `[slots]` int32, ascending
    in a row. `dense[row, col[crow[row] : crow[row + 1]]] = values[crow[row] : crow[row + 1]]`.
    """

    family = "csr"

    def find(self, weight: Occupancy) -> int:
        """The number of values that are not zero; fits every weight."""
        return weight.kept

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """`crow` and `col`."""
        _, col = weight.mask.nonzero(as_tuple=True)
        return {"crow": row_offsets(weight.mask), "col": col.to(torch.int32)}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """`row * k + col`."""
        rows = torch.repeat_interleave(torch.arange(shape[0]), index["crow"].diff().long())
        return rows * shape[1] + index["col"].long()

    def index_bits(self) -> sympy.Expr:
        """An int32 a value and an int32 a row."""
        from sparsecompile.costs import n, slots

        return 32 * (n + 1) + 32 * slots

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Cut the given share of smallest magnitudes of the whole weight."""
        return unstructured_mask(weight, sparsity)


def row_offsets(mask: Tensor) -> Tensor:
    """Where each row's kept values begin, and their number at the end: `[n + 1]` int32."""
    offsets = torch.zeros(mask.shape[0] + 1, dtype=torch.int32)
    offsets[1:] = mask.sum(1).cumsum(0)
    return offsets


def unstructured_mask(weight: Tensor, sparsity: float | None) -> Tensor:
    """Mask `[n, k]` that keeps the largest magnitudes; exactly `round(sparsity * n * k)` are cut.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    cut = round(check_share(sparsity) * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    if cut:
        mask[weight.abs().float().reshape(-1).argsort(stable=True)[:cut]] = False
    return mask.view(weight.shape)


def check_share(sparsity: float | None) -> float:
    """The share to cut.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    if sparsity is None or not 0 <= sparsity <= 1:
        raise ValueError(f"a share of zeros between 0 and 1 is needed, not {sparsity}")
    return sparsity


COMPONENTS = (CSR(),)
