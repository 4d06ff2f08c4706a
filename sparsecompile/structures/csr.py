"""`csr`: unstructured, one column index a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.magnitude import magnitudes, smallest

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

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A stretch of `col` a row."""
        crow, slots = take_stretches(index["crow"], groups)
        return {"crow": crow, "col": index["col"][slots]}, slots

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if columns ascend in every row and are below k.

        Raises:
            Reject: they do not.
        """
        check_offsets("crow", index["crow"], shape[0], slots)
        check_columns(index["crow"], index["col"], shape[1], slots)

    def index_bits(self) -> sympy.Expr:
        """An int32 a value and an int32 a row."""
        from sparsecompile.formats.symbols import n, slots

        return 32 * (n + 1) + 32 * slots

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Cut the given share of smallest magnitudes of the whole weight."""
        return unstructured_mask(weight, sparsity)


def row_offsets(mask: Tensor) -> Tensor:
    """Where each row's kept values begin, and their number at the end: `[n + 1]` int32."""
    offsets = torch.zeros(mask.shape[0] + 1, dtype=torch.int32)
    offsets[1:] = mask.sum(1).cumsum(0)
    return offsets


def take_stretches(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What `offsets` `[n + 1]` are for some rows `[r]` alone, and the entries that these have.

    Returns:
        `[r + 1]` int32, and `[e]` int64.
    """
    first = offsets[rows].long()
    counts = offsets[rows + 1].long() - first
    taken = torch.zeros(rows.numel() + 1, dtype=torch.int64)
    taken[1:] = counts.cumsum(0)
    entries = torch.repeat_interleave(first - taken[:-1], counts) + torch.arange(int(taken[-1]))
    return taken.to(torch.int32), entries


def check_offsets(name: str, offsets: Tensor, rows: int, entries: int) -> None:
    """Return if offsets begin at 0, never fall and end at the number of entries.

    Raises:
        Reject: they do not, or there are not `rows + 1`.
    """
    if offsets.shape != (rows + 1,):
        raise Reject(f"{name} has shape {tuple(offsets.shape)}, [{rows + 1}] is needed")
    if int(offsets[0]) != 0 or int(offsets[-1]) != entries or bool((offsets.diff() < 0).any()):
        raise Reject(f"{name} does not rise from 0 to {entries}")


def check_columns(offsets: Tensor, columns: Tensor, count: int, entries: int) -> None:
    """Return if the `col` tensor ascends within every row and stays below `count`.

    Args:
        offsets: `[n + 1]`, checked.
        columns: the tensor.
        count: how many columns there are.
        entries: how many entries it must have.

    Raises:
        Reject: it does not.
    """
    if columns.shape != (entries,):
        raise Reject(f"col has shape {tuple(columns.shape)}, [{entries}] is needed")
    if not entries:
        return
    low, high = columns.aminmax()
    if int(low) < 0 or int(high) >= count:
        raise Reject(f"col names column {int(low if int(low) < 0 else high)} of {count}")
    rises = columns.diff() > 0
    # Where a row begins, its first column may be anything.
    begins = offsets[1:-1].long()
    rises[begins[(begins > 0) & (begins < entries)] - 1] = True
    if not bool(rises.all()):
        raise Reject("col does not ascend within every row")


def unstructured_mask(weight: Tensor, sparsity: float | None) -> Tensor:
    """Mask `[n, k]` that keeps the largest magnitudes; exactly `round(sparsity * n * k)` are cut.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    cut = round(check_share(sparsity) * weight.numel())
    return ~smallest(magnitudes(weight.reshape(-1)), cut).view(weight.shape)


def check_share(sparsity: float | None) -> float:
    """The share to cut.

    Raises:
        ValueError: no share, or one outside [0, 1].
    """
    if sparsity is None or not 0 <= sparsity <= 1:
        raise ValueError(f"a share of zeros between 0 and 1 is needed, not {sparsity}")
    return sparsity


COMPONENTS = (CSR(),)
