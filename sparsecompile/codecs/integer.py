"""`int8`, `int4`: integers with one scale a row, or one a group of columns."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.structures.bits import pack_codes, unpack_codes

if TYPE_CHECKING:
    import sympy

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOAT_DTYPES}


@dataclass(frozen=True, eq=False)
class SymmetricInteger(Codec):
    """Integers from `-largest` to `largest`, rounded to nearest: `weight = integer * scale`.

    Value tensors: `values`, as the width says, and `scales` `[n, ceil(k / group)]` (`[n, 1]`
    without a group). A scale is the group's largest magnitude over `largest`, rounded to its dtype,
    of float32 to as many bits as leave the product exact in float32. That moves it by less than
    half a step in 256, so the largest value still rounds to `largest`: nothing is cut off, every
    value is within half a scale of what it was, and encoding the decoded values again gives the
    same bytes. No scale is below the normal numbers of its dtype, which in float16 is felt below
    6e-5; a group that is all zeros with that one has the scale 1.

    Attributes:
        group: columns that share a scale, counted from the left of a row; None for whole rows.
        scales: dtype of the scales: bfloat16, float16 or float32.
    """

    group: int | None = None
    scales: torch.dtype = torch.bfloat16

    lossless = False
    bits: ClassVar[int]
    largest: ClassVar[int]

    def __post_init__(self) -> None:
        """Check group and scales.

        Raises:
            ValueError: a group has no columns, or scales are no floats.
        """
        if self.group is not None and self.group < 1:
            raise ValueError(f"a group of {self.group} columns has no values")
        if self.scales not in FLOAT_DTYPES:
            raise ValueError(f"scales of {self.scales} are none of {', '.join(_DTYPES)}")

    @property
    def name(self) -> str:
        """`int8`, `int8[group=128]`, `int8[scales=float16]`, `int8[group=128,scales=float32]`."""
        parameters = [] if self.group is None else [f"group={self.group}"]
        if self.scales != torch.bfloat16:
            parameters.append(f"scales={str(self.scales).removeprefix('torch.')}")
        return f"{self.family}[{','.join(parameters)}]" if parameters else self.family

    @classmethod
    def parse(cls, parameters: str) -> SymmetricInteger:
        """From `group=128`, `scales=float16` or `group=128,scales=float16`.

        Raises:
            ValueError: anything else.
        """
        found = re.fullmatch(r"group=(\d+)(?:,scales=(\w+))?|scales=(\w+)", parameters)
        scales = (found[2] or found[3] or "bfloat16") if found is not None else ""
        if found is None or scales not in _DTYPES:
            raise ValueError(
                f"{cls.family} takes group=<columns> and scales=<{'|'.join(_DTYPES)}>, not "
                f"{parameters!r}"
            )
        return cls(None if found[1] is None else int(found[1]), _DTYPES[scales])

    def check(self, weight: Tensor) -> None:
        """Return if every value is finite and no scale overflows, nor a value that it makes.

        Raises:
            Reject: a value is NaN, infinite, within 1% of the largest of its dtype, or larger than
                any that a scale can make.
        """
        limit = torch.finfo(weight.dtype).max / (1 + 2**-7)
        limit = min(limit, self.largest * torch.finfo(self.scales).max)
        fits = weight.abs() <= limit
        if not bool(fits.all()):
            row, column = (~fits).nonzero()[0].tolist()
            raise Reject(
                f"row {row}, column {column} holds {float(weight[row, column]):g}, "
                f"{self} stores finite values up to {limit:.3g}"
            )

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """`values` and `scales`."""
        groups, count = places.groups(self.group), places.count(self.group)
        values = values.float()
        largest = torch.zeros(places.shape[0] * count)
        largest.scatter_reduce_(0, groups, values.abs(), "amax")
        scales = self._scales(largest)
        integers = (values / scales.float()[groups]).round_().to(torch.int8)
        return {"values": self._store(integers), "scales": scales.view(places.shape[0], count)}

    def _scales(self, largest: Tensor) -> Tensor:
        """A scale for each group, of the largest magnitudes."""
        tiny = torch.finfo(self.scales).tiny
        scales = (largest / self.largest).clamp_(min=tiny)
        if self.scales == torch.float32:
            spare = self.largest.bit_length()
            half, kept = 1 << spare - 1, -(1 << spare)
            scales = (scales.view(torch.int32) + half & kept).view(torch.float32)
        return torch.where(largest <= tiny / 2, 1.0, scales).to(self.scales)

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """`values * scales`, exact in float32 and then rounded to `dtype`."""
        scales = tensors["scales"].reshape(-1).float()[places.groups(self.group)]
        integers = self._load(tensors["values"], scales.numel())
        return (integers * scales).to(dtype)

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """Half a scale."""
        return tensors["scales"].reshape(-1).float()[places.groups(self.group)] / 2

    def take(self, tensors: Mapping[str, Tensor], slots: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Integers of the slots and scales of the rows."""
        return {"values": self._take(tensors["values"], slots), "scales": tensors["scales"][rows]}

    def check_values(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], slots: int
    ) -> None:
        """Return if integers are from `-largest` to `largest` and scales finite and above zero.

        Raises:
            Reject: they are not.
        """
        values, scales = tensors["values"], tensors["scales"]
        (n, k), size = shape, self._size(slots)
        count = 1 if self.group is None else -(-k // self.group)
        if values.shape != (size,):
            raise Reject(f"values has shape {tuple(values.shape)}, [{size}] is needed")
        if scales.shape != (n, count):
            raise Reject(f"scales has shape {tuple(scales.shape)}, [{n}, {count}] is needed")
        if not bool(((scales > 0) & scales.isfinite()).all()):
            raise Reject("scales holds one that is not finite and above zero")
        if not self._are_integers(values, slots):
            raise Reject(f"values holds one outside of -{self.largest} to {self.largest}")

    def coding(self, dtype: torch.dtype) -> Coding:
        """An integer, times the scale of its row or group."""
        return Coding(self.bits, "affine", self.group or 0, self.scales)

    def scale_bits(self) -> sympy.Expr:
        """16 or 32 bits a group."""
        import sympy

        from sparsecompile.formats.symbols import k, n

        return (
            8
            * self.scales.itemsize
            * n
            * (1 if self.group is None else sympy.ceiling(k / self.group))
        )

    @abstractmethod
    def _store(self, integers: Tensor) -> Tensor:
        """Integers `[slots]` int8 as `values`."""

    @abstractmethod
    def _load(self, values: Tensor, slots: int) -> Tensor:
        """`values` as integers `[slots]` int8."""

    @abstractmethod
    def _take(self, values: Tensor, slots: Tensor) -> Tensor:
        """`values` of some slots `[s]` int64 alone."""

    @abstractmethod
    def _size(self, slots: int) -> int:
        """How many elements `values` has."""

    @abstractmethod
    def _are_integers(self, values: Tensor, slots: int) -> bool:
        """Whether `values` of the right size hold integers from `-largest` to `largest` only."""


@dataclass(frozen=True, eq=False)
class Int8(SymmetricInteger):
    """Integers of 8 bits, -127 to 127: `values` `[slots]` int8; scales a row or group."""

    family = "int8"
    bits, largest = 8, 127

    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """8 bits a slot, 16 or 32 a scale."""
        from sparsecompile.formats.symbols import slots

        return 8 * slots + self.scale_bits()

    def _store(self, integers: Tensor) -> Tensor:
        return integers

    def _load(self, values: Tensor, slots: int) -> Tensor:
        return values

    def _take(self, values: Tensor, slots: Tensor) -> Tensor:
        return values[slots]

    def _size(self, slots: int) -> int:
        return slots

    def _are_integers(self, values: Tensor, slots: int) -> bool:
        return not bool((values == -128).any())


@dataclass(frozen=True, eq=False)
class Int4(SymmetricInteger):
    """Integers of 4 bits, -7 to 7: `values` `[ceil(slots / 2)]` uint8; scales a row or group.

    A byte holds two slots, the first in its lower half, as `integer + 8`: 1 to 15. The code 0
    stands only in the unused half of a last byte.
    """

    family = "int4"
    bits, largest = 4, 7

    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """4 bits a slot, rounded up to bytes, 16 or 32 a scale."""
        import sympy

        from sparsecompile.formats.symbols import slots

        return 8 * sympy.ceiling(slots / 2) + self.scale_bits()

    def _store(self, integers: Tensor) -> Tensor:
        return pack_codes((integers + 8).view(torch.uint8).unsqueeze(0), 4).squeeze(0)

    def _load(self, values: Tensor, slots: int) -> Tensor:
        return unpack_codes(values.unsqueeze(0), 4, slots).squeeze(0).view(torch.int8) - 8

    def _take(self, values: Tensor, slots: Tensor) -> Tensor:
        codes = (values[slots >> 1] >> ((slots & 1) * 4).to(torch.uint8)) & 15
        return pack_codes(codes.unsqueeze(0), 4).squeeze(0)

    def _size(self, slots: int) -> int:
        return -(-slots // 2)

    def _are_integers(self, values: Tensor, slots: int) -> bool:
        whole = values[: slots // 2]
        last = values[-1] & 15 if slots % 2 else 1
        return not bool(((whole & 15 == 0) | (whole >> 4 == 0)).any()) and bool(last)


COMPONENTS = tuple(codec(group) for codec in (Int8, Int4) for group in (None, 32, 64, 128))
