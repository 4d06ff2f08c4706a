"""Format, a Structure and a Codec; and Packed, one weight in one Format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coordinates import Places
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Format:
    """Structure x Codec, written `n_m[2:4]/float`."""

    structure: Structure
    codec: Codec

    def __str__(self) -> str:
        """`structure/codec`."""
        return f"{self.structure}/{self.codec}"

    def nbytes(self, shape: tuple[int, int], slots: int, dtype: torch.dtype) -> int:
        """Bytes of a weight in this format, exactly, without packing it."""
        from sparsecompile.formats.symbols import evaluate

        return evaluate(_bits(self, dtype), shape, slots) // 8

    def pack(self, weight: Tensor | Occupancy) -> Packed:
        """Store a weight `[n, k]` in this format.

        Raises:
            Reject: the weight does not have this structure, or the codec cannot store a value.
        """
        occupancy = weight if isinstance(weight, Occupancy) else Occupancy(weight)
        slots = self.structure.find(occupancy)
        self.codec.check(occupancy.weight)
        index = self.structure.encode(occupancy)
        gathered = self.structure.gather(occupancy.weight, index)
        values = self.codec.encode(gathered, Places(self.structure, index, occupancy.shape))
        return Packed(self, occupancy.shape, occupancy.weight.dtype, slots, index, values)


@lru_cache(maxsize=256)
def _bits(format: Format, dtype: torch.dtype) -> sympy.Expr:
    """Of a weight in a format; sympy takes longer to put this together than to count zeros."""
    return format.structure.index_bits() + format.codec.value_bits(dtype)


@dataclass(frozen=True, eq=False)
class Packed:
    """One weight in one Format: canonical tensors, with no kernel's layout in them.

    Attributes:
        shape: `(n, k)` of the dense weight.
        dtype: dtype of the dense weight.
        slots: stored values, padding included.
        index: the structure's tensors by name, in order.
        values: the codec's tensors by name, in order.
    """

    format: Format
    shape: tuple[int, int]
    dtype: torch.dtype
    slots: int
    index: Mapping[str, Tensor]
    values: Mapping[str, Tensor]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: the index, then the values."""
        return {**self.index, **self.values}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def compression(self) -> float:
        """Dense bytes over packed bytes; infinity when nothing is stored."""
        dense = self.shape[0] * self.shape[1] * self.dtype.itemsize
        return dense / self.nbytes if self.nbytes else float("inf")

    @property
    def places(self) -> Places:
        """Where the slots are."""
        return Places(self.format.structure, self.index, self.shape)

    def to(self, dtype: torch.dtype) -> Packed:
        """For a weight of another dtype: rounded where the codec is lossless, else the same."""
        codec, places = self.format.codec, self.places
        values = self.values
        if codec.lossless:
            values = codec.encode(codec.decode(values, places, dtype), places)
        return Packed(self.format, self.shape, dtype, self.slots, self.index, values)

    def take(self, groups: Tensor) -> Packed | None:
        """Some groups of `row_multiple` rows, `[g]` int64, as a weight of their own.

        The last group of a ragged weight gets rows of zeros. None where structure or codec cannot
        tell rows apart.
        """
        structure, codec = self.format.structure, self.format.codec
        taken = structure.take(self.index, self.shape, groups)
        if taken is None:
            return None
        index, slots = taken
        rows = groups[:, None] * structure.row_multiple + torch.arange(structure.row_multiple)
        rows = rows.reshape(-1).clamp(max=max(self.shape[0] - 1, 0))
        values = codec.take(self.values, slots, rows)
        if values is None:
            return None
        shape = (rows.numel(), self.shape[1])
        return Packed(self.format, shape, self.dtype, slots.numel(), index, values)

    def rows(self, rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Rows `[r]` int64 of the dense weight, `[r, k]`, without unpacking the others."""
        multiple = self.format.structure.row_multiple
        groups, place = torch.unique(rows // multiple, return_inverse=True)
        part = self.take(groups)
        if part is None:
            return self.unpack(dtype)[rows]
        return part.unpack(dtype)[place * multiple + rows % multiple]

    def unpack(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dense weight `[n, k]`: `zeros.flatten()[positions] = values`.

        Args:
            dtype: to which values are rounded, by default the weight's own. What a lossy format
                stores is exact in float32, and that is what kernels multiply with.
        """
        padded, places = self.format.structure.padded(self.shape), self.places
        values = self.format.codec.decode(self.values, places, dtype or self.dtype)
        dense = torch.zeros(padded[0] * padded[1], dtype=values.dtype)
        dense[places.flat] = values
        return dense.view(padded)[: self.shape[0], : self.shape[1]].contiguous()
