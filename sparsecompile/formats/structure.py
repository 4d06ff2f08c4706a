"""Structure: where the kept values of a weight are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparsecompile.component import Family
from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy

if TYPE_CHECKING:
    import sympy


class Structure(Family):
    """Where the kept values of a weight are.

    An instance is one structure with its parameters, such as `NM(2, 4)`; register as many as
    should be looked for. The contract, held by `sparsecompile.testing`:

    - `find` returns the number of slots (stored values, padding included) or raises `Reject`;
    - `encode` gives the index tensors, `positions` reads them back: slot -> place in the padded
      dense matrix, so `dense.flatten()[positions] = values` is the executable definition;
    - the bits of the index tensors are exactly `index_bits()`.
    """

    row_multiple: ClassVar[int] = 1
    """Rows that share index entries; weights are stacked on multiples of it."""

    @abstractmethod
    def find(self, weight: Occupancy) -> int:
        """Number of slots this structure needs for the weight.

        Raises:
            Reject: the weight does not have this structure; the reason names the place.
        """

    @abstractmethod
    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """Index tensors of a weight for which `find` succeeded, in the order kernels see them."""

    @abstractmethod
    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Flat place of every slot in the padded dense matrix: `[slots]` int64, no duplicates."""

    def most_kept(self, columns: int) -> int:
        """At most so many values are kept of `columns` aligned columns of a row.

        All of them, unless the structure promises less for every weight.
        """
        return columns

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the dense matrix that `positions` addresses; at least `shape`."""
        return shape

    def gather(self, weight: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """Values of all slots in order: `[slots]`. Override only for speed."""
        shape = (weight.shape[0], weight.shape[1])
        return _pad(weight, self.padded(shape)).reshape(-1)[self.positions(index, shape)]

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor] | None:
        """Index tensors of some rows alone and the slots these have, `[s]` int64.

        None where that cannot be had without the others.

        Args:
            index: of the whole weight.
            shape: of the whole weight.
            groups: which groups of `row_multiple` rows: `[g]` int64.
        """
        return None

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if tensors that were read from a file are the index of a weight of this shape.

        Names and dtypes are right; sizes and contents may not be, and kernels do not look: a place
        outside of the weight must not pass.

        Raises:
            Reject: they are not; the reason begins with the name of the tensor.
        """
        try:
            places = self.positions(index, shape)
        except (RuntimeError, IndexError) as error:
            raise Reject(f"{next(iter(index), self.name)} cannot be read: {error}") from error
        rows, columns = self.padded(shape)
        inside = (places >= 0) & (places < rows * columns)
        if places.numel() != slots or not bool(inside.all()) or places.unique().numel() != slots:
            raise Reject(f"{next(iter(index), self.name)} does not name {slots} places")

    @abstractmethod
    def index_bits(self) -> sympy.Expr:
        """Bits of all index tensors in the symbols of `sparsecompile.formats.symbols`."""

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Mask `[n, k]` bool of the values that magnitude pruning keeps.

        Args:
            weight: `[n, k]`.
            sparsity: share to cut, for structures that do not fix it themselves; else None.

        Raises:
            ValueError: a share is needed, or given where the structure fixes it, or this
                structure has no pruning of its own.
        """
        raise ValueError(f"{self.name} has no pruning of its own")


def _pad(weight: Tensor, shape: tuple[int, int]) -> Tensor:
    n, k = weight.shape
    if (n, k) == shape:
        return weight.contiguous()
    return torch.nn.functional.pad(weight, (0, shape[1] - k, 0, shape[0] - n))
