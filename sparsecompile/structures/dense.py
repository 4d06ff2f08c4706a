"""`dense`: every value is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure

if TYPE_CHECKING:
    import sympy


class Dense(Structure):
    """Row-major values and no index: `dense = values.view(n, k)`.

    Fits every weight, so it is the size that the other structures have to beat.
    """

    family = "dense"

    def find(self, weight: Occupancy) -> int:
        """All `n * k` values."""
        return weight.weight.numel()

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """No index."""
        return {}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """`0, 1, ..., n * k - 1`."""
        return torch.arange(shape[0] * shape[1])

    def gather(self, weight: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """The weight itself."""
        return weight.reshape(-1).clone()

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """`k` slots a row."""
        return {}, (groups[:, None] * shape[1] + torch.arange(shape[1])).reshape(-1)

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if there is a slot for every place.

        Raises:
            Reject: there are more or fewer.
        """
        if slots != shape[0] * shape[1]:
            raise Reject(f"values has {slots} slots, {shape[0] * shape[1]} are needed")

    def index_bits(self) -> sympy.Expr:
        """Zero."""
        import sympy

        return sympy.Integer(0)


COMPONENTS = (Dense(),)
