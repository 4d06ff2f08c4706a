"""Codecs of codes with one scale a row, or one a group of columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparsecompile.codecs.parameters import Parametric, choice, number
from sparsecompile.errors import Reject
from sparsecompile.formats.coordinates import Places
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.structures.bits import load_stream, store_stream, stream_bytes, take_stream

if TYPE_CHECKING:
    import sympy

_SCALES = {f"scales={str(dtype).removeprefix('torch.')}": dtype for dtype in FLOAT_DTYPES}


@dataclass(frozen=True, eq=False)
class Scaled(Parametric):
    """Codes of `bits` bits, and a scale a row or group that what they stand for is times.

    Value tensors: `values` `[ceil(slots * bits / 8)]` uint8, slot `i` in bits `i * bits` and after
    of the bytes, lowest first; `scales` `[n, ceil(k / group)]` (`[n, 1]` without a group).

    Attributes:
        group: columns that share a scale, counted from the left of a row; None for whole rows.
        scales: dtype of the scales: bfloat16, float16 or float32.
        lossless: whether weights are stored bit for bit or refused: every value is what `decode`
            gives, rounded to the weight's dtype. Else they are rounded to what is near.
    """

    group: int | None = number(None, "columns")
    scales: torch.dtype = field(default=torch.bfloat16, metadata={"texts": _SCALES})
    lossless: bool = choice(False, {"lossless": True})

    bits: ClassVar[int]

    def __post_init__(self) -> None:
        """Check group and scales.

        Raises:
            ValueError: a group has no columns, or scales are no floats.
        """
        if self.group is not None and self.group < 1:
            raise ValueError(f"a group of {self.group} columns has no values")
        if self.scales not in FLOAT_DTYPES:
            names = ", ".join(text.partition("=")[2] for text in _SCALES)
            raise ValueError(f"scales of {self.scales} are none of {names}")

    def check(self, weight: Tensor) -> None:
        """Return if every value is finite and no scale overflows, nor a value that it makes.

        Raises:
            Reject: a value is NaN, infinite, within 1% of the largest of its dtype unless it is
                stored bit for bit, or larger than any that a scale can make.
        """
        limit = torch.finfo(weight.dtype).max
        if not self.lossless:
            limit = min(limit / (1 + 2**-7), self._limit())
        fits = weight.abs() <= limit
        if not bool(fits.all()):
            row, column = (~fits).nonzero()[0].tolist()
            raise Reject(
                f"row {row}, column {column} holds {float(weight[row, column]):g}, "
                f"{self} stores finite values up to {limit:.3g}"
            )

    @abstractmethod
    def _limit(self) -> float:
        """The largest magnitude that scales can make."""

    def count(self, columns: int) -> int:
        """Groups in a row of so many columns."""
        return 1 if self.group is None else -(-columns // self.group)

    def group_bits(self) -> int:
        """Bits that a group has beside its codes: a scale's, 16 or 32."""
        return 8 * self.scales.itemsize

    def value_bits(self, dtype: torch.dtype) -> sympy.Expr:
        """So many bits a slot, rounded up to bytes, and so many a group."""
        import sympy

        from sparsecompile.formats.symbols import k, n, slots

        count = 1 if self.group is None else sympy.ceiling(k / self.group)
        return 8 * sympy.ceiling(self.bits * slots / 8) + self.group_bits() * n * count

    def take(self, tensors: Mapping[str, Tensor], slots: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Codes of the slots, and of all else the rows."""
        rest = {name: tensor[rows] for name, tensor in tensors.items() if name != "values"}
        return {"values": take_stream(tensors["values"], self.bits, slots), **rest}

    def check_values(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], slots: int
    ) -> None:
        """Return if sizes are right, scales finite and, where values are rounded, above zero.

        Raises:
            Reject: they are not.
        """
        (n, k), size = shape, stream_bytes(slots, self.bits)
        if tensors["values"].shape != (size,):
            raise Reject(f"values has shape {tuple(tensors['values'].shape)}, [{size}] is needed")
        for name, tensor in tensors.items():
            if name != "values" and tensor.shape != (n, self.count(k)):
                raise Reject(
                    f"{name} has shape {tuple(tensor.shape)}, [{n}, {self.count(k)}] is needed"
                )
        scales = tensors.get("scales", torch.ones(1))
        if not bool((scales.isfinite() & ((scales > 0) | self.lossless)).all()):
            above = "" if self.lossless else " and above zero"
            raise Reject(f"scales holds one that is not finite{above}")

    def _scales(self, spreads: Tensor, steps: int, *, up: bool = False) -> Tensor:
        """Scales of groups whose values spread over so many steps: rounded, or rounded up."""
        tiny = torch.finfo(self.scales).tiny
        scales = (spreads / steps).clamp_(min=tiny)
        if self.scales == torch.float32:
            spare = steps.bit_length()
            half = (1 << spare) - 1 if up else 1 << spare - 1
            scales = (scales.view(torch.int32) + half & -(1 << spare)).view(torch.float32)
        elif up:
            scales = -rounded_down(-scales, self.scales).float()
        return scales.to(self.scales)

    def _largest(self, values: Tensor, places: Places) -> Tensor:
        """The largest magnitude of every group, float32."""
        count = places.shape[0] * self.count(places.shape[1])
        largest = torch.zeros(count)
        return largest.scatter_reduce_(0, places.groups(self.group), values.abs(), "amax")

    def _by_slot(self, tensor: Tensor, places: Places) -> Tensor:
        """What every slot has of a tensor with one number a group, float32 `[slots]`."""
        return tensor.reshape(-1).float()[places.groups(self.group)]

    def _store(self, codes: Tensor) -> Tensor:
        """Codes `[slots]` uint8 as `values`."""
        return store_stream(codes, self.bits)

    def _load(self, values: Tensor, slots: int) -> Tensor:
        """`values` as codes `[slots]` uint8."""
        return load_stream(values, self.bits, slots)


def rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 values in another dtype, rounded towards minus infinity."""
    rounded = values.to(dtype)
    if dtype == values.dtype:
        return rounded
    bits = rounded.view(torch.int16)
    lower = torch.where(rounded > 0, bits - 1, bits + 1).view(dtype)
    return torch.where(rounded.float() > values, lower, rounded)
