"""Packed: one weight in one Format; Structure says where its kept values are, Codec how stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparsecompile.occupancy import Occupancy
from sparsecompile.places import Places

if TYPE_CHECKING:
    import sympy


class Structure(ABC):
    """Where the kept values of a weight are.

    An instance is one structure with its parameters, such as `NM(2, 4)`; register as many as
    should be looked for. The contract, held by `sparsecompile.testing`:

    - `find` returns the number of slots (stored values, padding included) or raises `Reject`;
    - `encode` gives the index tensors, `positions` reads them back: slot -> place in the padded
      dense matrix, so `dense.flatten()[positions] = values` is the executable definition;
    - the bits of the index tensors are exactly `index_bits()`.
    """

    family: ClassVar[str]
    """Name without parameters, such as `n_m`."""
    row_multiple: ClassVar[int] = 1
    """Rows that share index entries; weights are stacked on multiples of it."""

    @property
    def name(self) -> str:
        """Name with parameters, such as `n_m[2:4]`; unique in a registry."""
        return self.family

    @classmethod
    def parse(cls, parameters: str) -> Structure:
        """Make an instance from the text between the brackets of a name.

        Raises:
            ValueError: the text does not fit this family.
        """
        if parameters:
            raise ValueError(f"{cls.family} takes no parameters")
        return cls()

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

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the dense matrix that `positions` addresses; at least `shape`."""
        return shape

    def gather(self, weight: Tensor, index: Mapping[str, Tensor]) -> Tensor:
        """Values of all slots in order: `[slots]`. Override only for speed."""
        shape = (weight.shape[0], weight.shape[1])
        return _pad(weight, self.padded(shape)).reshape(-1)[self.positions(index, shape)]

    @abstractmethod
    def index_bits(self) -> sympy.Expr:
        """Bits of all index tensors in the symbols of `sparsecompile.costs`."""

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

    def __eq__(self, other: object) -> bool:
        """Same class and name."""
        return type(self) is type(other) and self.name == str(other)

    def __hash__(self) -> int:
        """By name."""
        return hash(self.name)

    def __str__(self) -> str:
        """The name."""
        return self.name


def _pad(weight: Tensor, shape: tuple[int, int]) -> Tensor:
    n, k = weight.shape
    if (n, k) == shape:
        return weight.contiguous()
    return torch.nn.functional.pad(weight, (0, shape[1] - k, 0, shape[0] - n))


class Codec(ABC):
    """How kept values are stored.

    The contract, held by `sparsecompile.testing`:

    - `check` raises `Reject` for a weight with values that cannot be stored, and `encode` stores
      the values of every other one;
    - `decode(encode(v)) == v` when `lossless`, else it is within `error_bound` of `v`, and
      encoding what `decode` gives in float32 gives the same bytes again;
    - the bits of the value tensors are exactly `value_bits()`.
    """

    family: ClassVar[str]
    lossless: ClassVar[bool]

    @property
    def name(self) -> str:
        """Name with parameters, such as `int8[group=128]`; unique in a registry."""
        return self.family

    @classmethod
    def parse(cls, parameters: str) -> Codec:
        """Make an instance from the text between the brackets of a name.

        Raises:
            ValueError: the text does not fit this family.
        """
        if parameters:
            raise ValueError(f"{cls.family} takes no parameters")
        return cls()

    def check(self, weight: Tensor) -> None:  # noqa: B027 - most codecs store every value
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
        """

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """The values `[slots]` that `tensors` stand for, rounded to `dtype`; exact in float32."""

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """How far `decode` in float32 may be from what was encoded: `[slots]` float32, or `[]`."""
        return torch.zeros(())

    @abstractmethod
    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """Bits of all value tensors in the symbols of `sparsecompile.costs`."""

    def __eq__(self, other: object) -> bool:
        """Same class and name."""
        return type(self) is type(other) and self.name == str(other)

    def __hash__(self) -> int:
        """By name."""
        return hash(self.name)

    def __str__(self) -> str:
        """The name."""
        return self.name


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
        from sparsecompile.costs import evaluate

        bits = self.structure.index_bits() + self.codec.value_bits(dtype)
        return evaluate(bits, shape, slots) // 8

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
