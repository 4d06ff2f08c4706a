"""Places: which row and column every slot of a weight has, for codecs that need to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from sparsecompile.formats.structure import Structure


@dataclass(frozen=True, eq=False)
class Places:
    """Where the slots of one weight are.

    Worked out when a codec asks, so that `float` pays nothing.

    Attributes:
        structure: the weight's structure.
        index: its index tensors.
        shape: `(n, k)` of the dense weight.
    """

    structure: Structure
    index: Mapping[str, Tensor]
    shape: tuple[int, int]

    @cached_property
    def flat(self) -> Tensor:
        """Places in the padded dense matrix: `[slots]` int64."""
        return self.structure.positions(self.index, self.shape)

    @property
    def rows(self) -> Tensor:
        """Row of every slot: `[slots]` int64; `n` and more for slots that only pad, which are 0."""
        return self.flat // self.structure.padded(self.shape)[1]

    @property
    def columns(self) -> Tensor:
        """Column of every slot: `[slots]` int64; `k` and more for slots that only pad."""
        return self.flat % self.structure.padded(self.shape)[1]

    def groups(self, size: int | None) -> Tensor:
        """Which group of `size` neighbours in a row every slot belongs to: `[slots]` int64.

        Groups are counted row by row; `count(size)` belong to a row. A slot that only pads counts
        to the last row and group there is.

        Args:
            size: columns of a group; None for whole rows.
        """
        n, k = self.shape
        if k and self.structure.padded(self.shape) == self.shape and k % (size or k) == 0:
            return self.flat // (size or k)
        rows = self.rows
        rows = rows.clamp(max=max(n - 1, 0))
        if size is None:
            return rows
        count = self.count(size)
        return rows * count + (self.columns // size).clamp(max=count - 1)

    def count(self, size: int | None) -> int:
        """Groups of `size` columns in a row; one where `size` is None."""
        return 1 if size is None else -(-self.shape[1] // size)
