"""Format, a Structure and a Codec; and Packed, one weight in one Format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

_FEW_ROWS = 16


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

    def pack(self, weight: Tensor | Occupancy, exact: bool | None = None) -> Packed:
        """Store a weight `[n, k]` in this format.

        Args:
            weight: the weight.
            exact: see `Packed`, where it is known; else values are compared.

        Raises:
            Reject: the weight does not have this structure, or the codec cannot store a value.
        """
        occupancy = weight if isinstance(weight, Occupancy) else Occupancy(weight)
        slots = self.structure.find(occupancy)
        self.codec.check(occupancy.weight)
        index = self.structure.encode(occupancy)
        gathered = self.structure.gather(occupancy.weight, index)
        values = self.codec.encode(gathered, Places(self.structure, index, occupancy.shape))
        if exact is None and self.codec.lossless:
            exact = True
        dtype = occupancy.weight.dtype
        packed = Packed(self, occupancy.shape, dtype, slots, index, values, bool(exact))
        if exact is None:
            return replace(packed, exact=packed.keeps(occupancy.weight))
        return packed


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
        exact: whether every value is known to be that of the weight that was packed, and nothing
            was rounded. Of a lossless codec that is a promise, of others luck: a weight may have
            come from such integers.
    """

    format: Format
    shape: tuple[int, int]
    dtype: torch.dtype
    slots: int
    index: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    exact: bool

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
        """For a weight of another dtype: rounded where the codec is lossless, else the same.

        Raises:
            Reject: what is rounded can no longer be stored.
        """
        codec, places = self.format.codec, self.places
        values: Mapping[str, Tensor]
        if codec.lossless:
            decoded = codec.decode(self.values, places, self.dtype)
            values = codec.encode(decoded.to(dtype), places)
        else:
            values = codec.cast(self.values, dtype)
        return replace(self, dtype=dtype, values=values, exact=self.exact and dtype == self.dtype)

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
        return replace(self, shape=shape, slots=slots.numel(), index=index, values=values)

    def keeps(self, weight: Tensor) -> bool:
        """Whether this is every value of a dense weight `[n, k]`, exact in float32."""
        # Few rows tell it of almost every weight of which it is not.
        few = torch.arange(min(_FEW_ROWS, self.shape[0]))
        return torch.equal(self.rows(few, torch.float32), weight[few].float()) and torch.equal(
            self.unpack(torch.float32), weight.float()
        )

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
                stores is exact in float32, and that is what kernels multiply with; what a lossless
                one stores is the weight's own value.
        """
        padded, places = self.format.structure.padded(self.shape), self.places
        codec, dtype = self.format.codec, dtype or self.dtype
        kept = self.dtype if codec.lossless else dtype
        values = codec.decode(self.values, places, kept).to(dtype)
        dense = torch.zeros(padded[0] * padded[1], dtype=values.dtype)
        dense[places.flat] = values
        return dense.view(padded)[: self.shape[0], : self.shape[1]].contiguous()
