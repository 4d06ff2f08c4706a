"""Codec: how the kept values of a weight are stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.component import Family
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places

if TYPE_CHECKING:
    import sympy


class Codec(Family):
    """How kept values are stored.

    The contract, held by `sparsecompile.testing`:

    - `check` raises `Reject` for a weight with values that cannot be stored, and `encode` stores
      the values of every other one;
    - `decode(encode(v)) == v` when `lossless`, else it is within `error_bound` of `v`, and unless
      values have offsets encoding what `decode` gives in float32 gives the same bytes again;
    - `coding` is how each value is stored;
    - the bits of the value tensors are exactly `value_bits()`.
    """

    lossless: bool
    """Whether it promises that every weight that it stores is kept, `Packed.exact`, and refuses the
    others. Formats with such a codec are looked for without being asked for."""

    def check(self, weight: Tensor) -> None:
        """Return if every value of the dense weight `[n, k]` can be stored.

        Raises:
            Reject: one cannot; the reason names its place.
        """

    @abstractmethod
    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """Value tensors for `values` `[slots]` (float32, bfloat16 or float16).

        Args:
            values: of a weight that `check` lets pass.
            places: row and column of every slot, for scales that belong to them.

        Raises:
            Reject: the codec is lossless, and cannot keep a value; the reason names its place.
        """

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """The values `[slots]` that `tensors` stand for, rounded to `dtype`; exact in float32."""

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """How far `decode` in float32 may be from what was encoded: `[slots]` float32, or `[]`."""
        return torch.zeros(())

    def take(
        self, tensors: Mapping[str, Tensor], slots: Tensor, rows: Tensor
    ) -> dict[str, Tensor] | None:
        """Value tensors of some rows alone, None where that cannot be had without the others.

        Args:
            tensors: of the whole weight.
            slots: which slots these rows have: `[s]` int64.
            rows: which rows: `[r]` int64.
        """
        return None

    def cast(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Value tensors of the same values in a weight of another dtype, where some are lost."""
        return tensors

    def check_values(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], slots: int
    ) -> None:
        """Return if tensors that were read from a file are values of a weight with these slots.

        Names and dtypes are right; sizes may not be, nor contents. A codec whose kernels rely on
        contents overrides this.

        Raises:
            Reject: they are not; the reason begins with the name of the tensor.
        """
        for name, tensor in tensors.items():
            if tensor.shape != (slots,):
                raise Reject(f"{name} has shape {tuple(tensor.shape)}, [{slots}] is needed")

    def coding(self, dtype: torch.dtype) -> Coding | None:
        """How a value is stored in a weight of a dtype; None where that takes the codec's own code.

        Kernels that keep values as they are stored read it; others call `decode` of a fragment.
        """
        return None

    @abstractmethod
    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """Bits of all value tensors in the symbols of `sparsecompile.formats.symbols`."""
