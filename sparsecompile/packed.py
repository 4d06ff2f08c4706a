"""Packed: one weight in one Format; Structure says where its kept values are, Codec how stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparsecompile.errors import Reject

if TYPE_CHECKING:
    import sympy

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Occupancy:
    """A dense weight `[n, k]` together with what several structures want to know of its zeros.

    Counting is done once and shared by every structure that is asked to find itself.
    A negative zero counts as zero: `weight * mask` leaves one wherever a negative value was cut.

    Args:
        weight: `[n, k]`, float32, bfloat16 or float16, any strides, on the CPU.

    Raises:
        Reject: the weight is not two-dimensional or has another dtype.
    """

    def __init__(self, weight: Tensor) -> None:
        if weight.dim() != 2:
            raise Reject(f"the weight has {weight.dim()} dimensions, 2 are needed")
        if weight.dtype not in FLOAT_DTYPES:
            raise Reject(f"the weight is {weight.dtype}, float32, bfloat16 or float16 is needed")
        self.weight = weight.detach()
        self._group_counts: dict[int, Tensor] = {}
        self._group_ranges: dict[int, tuple[int, int]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """`(n, k)`."""
        return self.weight.shape[0], self.weight.shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """`[n, k]` bool, contiguous: True where a value is kept (not zero; NaN is kept)."""
        return (self.weight != 0).contiguous()

    @cached_property
    def kept(self) -> int:
        """How many values are not zero."""
        return int(self.group_counts(8).sum())

    @property
    def density(self) -> float:
        """Share of values that are not zero; 0 for an empty weight."""
        return self.kept / max(self.mask.numel(), 1)

    def group_counts(self, m: int) -> Tensor:
        """Kept values in each group of `m` consecutive columns: `[n, ceil(k / m)]` uint8.

        Args:
            m: group size, at most 32; a ragged last group counts as if padded with zeros.
        """
        if m not in self._group_counts:
            half = self._group_counts.get(m // 2) if m % 2 == 0 else None
            cells, size = (half, 2) if half is not None else (self.mask.view(torch.uint8), m)
            self._group_counts[m] = _sum_groups(cells, size)
        return self._group_counts[m]

    def group_range(self, m: int) -> tuple[int, int]:
        """The smallest and the largest of `group_counts(m)`; `(0, 0)` of an empty weight."""
        if m not in self._group_ranges:
            counts = self.group_counts(m)
            low, high = counts.aminmax() if counts.numel() else (0, 0)
            self._group_ranges[m] = int(low), int(high)
        return self._group_ranges[m]


_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _sum_groups(cells: Tensor, size: int) -> Tensor:
    """Sum `size` neighbours in each row of a contiguous uint8 tensor, padded to whole groups.

    Sums stay below 128. Two, four or eight neighbours are read as one integer: multiplied by
    `0x0101...` its highest byte is the sum of its bytes.
    """
    if cells.shape[1] % size:
        cells = torch.nn.functional.pad(cells, (0, size - cells.shape[1] % size))
    if size in _WORDS and cells.numel():
        bits = 8 * (size - 1)
        ones = sum(1 << 8 * i for i in range(size))
        return (cells.view(_WORDS[size]) * ones >> bits).to(torch.uint8)
    total = cells[:, ::size].clone()
    for offset in range(1, size):
        total += cells[:, offset::size]
    return total


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
    """How kept values are stored. The contract: `decode(encode(v)) == v` when `lossless`."""

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

    @abstractmethod
    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """Value tensors for `values` `[slots]` (float32, bfloat16 or float16).

        Raises:
            Reject: these values cannot be stored by this codec.
        """

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The values `[slots]` in `dtype` that `tensors` stand for."""

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
        self.structure.find(occupancy)
        index = self.structure.encode(occupancy)
        values = self.codec.encode(self.structure.gather(occupancy.weight, index))
        return Packed(self, occupancy.shape, occupancy.weight.dtype, index, values)


@dataclass(frozen=True, eq=False)
class Packed:
    """One weight in one Format: canonical tensors, with no kernel's layout in them.

    Attributes:
        shape: `(n, k)` of the dense weight.
        dtype: dtype of the dense weight.
        index: the structure's tensors by name, in order.
        values: the codec's tensors by name, in order.
    """

    format: Format
    shape: tuple[int, int]
    dtype: torch.dtype
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

    def unpack(self) -> Tensor:
        """The dense weight `[n, k]`: `zeros.flatten()[positions] = values`."""
        structure = self.format.structure
        padded = structure.padded(self.shape)
        values = self.format.codec.decode(self.values, self.dtype)
        dense = torch.zeros(padded[0] * padded[1], dtype=self.dtype)
        dense[structure.positions(self.index, self.shape)] = values
        return dense.view(padded)[: self.shape[0], : self.shape[1]].contiguous()
