"""`int2` to `int8`, `ternary`: integers with one scale a row, or one a group of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sparsecompile.codecs.grid import Grid, fit_integers
from sparsecompile.codecs.parameters import choice
from sparsecompile.codecs.scaled import Scaled, rounded_down
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places

_OFFSETS = {"zero_points": "zero_points", "minima": "minima"}


@dataclass(frozen=True, eq=False)
class Integer(Scaled):
    """Integers of a few bits and a scale: `weight = scale * integer`.

    Codes `c` are unsigned. Without offsets the integer is `c - 2 ** (bits - 1)`; with `zero_points`
    it is `c - zero_point`; with `minima` the weight is `scale * c + minimum`, the product and the
    sum in float32. Of 8 bits `values` is int8 `[slots]`, `c - 128`; else see `Scaled`. Offsets are
    one more tensor of the shape of `scales`: `zero_points` uint8, or `minima` in the dtype of
    scales.

    What is rounded to nearest is within half a scale of what it was, and nothing is cut off.
    Without offsets integers are `-largest` to `largest`, and a scale is the group's largest
    magnitude over `largest`, rounded to its dtype, of float32 to as many bits as leave the product
    exact in float32. That moves it by less than half a step in 256, so the largest value still
    rounds to `largest`, and encoding the decoded values again gives the same bytes. With offsets a
    scale is rounded up, of float32 as above, and a minimum down. No scale is below the normal
    numbers of its dtype, which in float16 is felt below 6e-5. A group of one value has the smallest
    of them, since what kernels add and take off again is in scales.

    Attributes:
        offsets: what scales have beside them, if anything.
    """

    offsets: Literal["zero_points", "minima"] | None = choice(None, _OFFSETS)

    least: ClassVar[int] = 0
    """The smallest code."""

    @property
    def grid(self) -> Grid:
        """Where values that are stored bit for bit lie."""
        return Grid(self.bits, self.group, self.scales, self.offsets, self.least)

    @property
    def largest(self) -> int:
        """The largest integer without offsets; what is rounded has none below `-largest`."""
        return self.grid.largest

    @property
    def levels(self) -> int:
        """The largest code."""
        return self.grid.levels

    def _limit(self) -> float:
        top = torch.finfo(self.scales).max
        return self.largest * top if self.offsets is None else top / 2

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """`values`, `scales` and offsets.

        Raises:
            Reject: it is lossless, and a group of values is on no grid.
        """
        if self.lossless:
            codes, scales, offsets = fit_integers(self.grid, values, places)
        else:
            codes, scales, offsets = self._rounded(values.float(), places)
        shape = places.shape[0], self.count(places.shape[1])
        tensors = {"values": self._store(codes), "scales": scales.view(shape)}
        return tensors if self.offsets is None else tensors | {self.offsets: offsets.view(shape)}

    def _rounded(self, values: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Codes `[slots]`, and scales and offsets a group."""
        groups, count = places.groups(self.group), places.shape[0] * self.count(places.shape[1])
        if self.offsets is None:
            scales = self._scales(self._largest(values, places), self.largest)
            integers = (values / scales.float()[groups]).round_()
            return (integers + (self.largest + 1)).to(torch.uint8), scales, scales
        from_zero = self.offsets == "zero_points"
        low, high = (
            torch.zeros(count).scatter_reduce_(0, groups, values, how, include_self=from_zero)
            for how in ("amin", "amax")
        )
        if from_zero:
            scales = self._scales(high - low, self.levels, up=True)
            offsets = (-low / scales.float()).round_().to(torch.uint8)
            steps = (values / scales.float()[groups]).round_() + offsets[groups]
        else:
            offsets = rounded_down(low, self.scales)
            scales = self._scales(high - offsets.float(), self.levels, up=True)
            steps = ((values - offsets.float()[groups]) / scales.float()[groups]).round_()
        return steps.clamp_(0, self.levels).to(torch.uint8), scales, offsets

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """`scale * integer` or `scale * code + minimum` in float32, then rounded to `dtype`."""
        scales = self._by_slot(tensors["scales"], places)
        codes = self._load(tensors["values"], scales.numel()).float()
        if self.offsets == "minima":
            return (codes * scales + self._by_slot(tensors["minima"], places)).to(dtype)
        zero: Tensor | int = self.largest + 1
        if self.offsets == "zero_points":
            zero = self._by_slot(tensors["zero_points"], places)
        return ((codes - zero) * scales).to(dtype)

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """Half a scale; with minima as much as the sum was rounded by, too."""
        scales = self._by_slot(tensors["scales"], places)
        if self.offsets != "minima":
            return scales / 2
        sizes = self.levels * scales + self._by_slot(tensors["minima"], places).abs()
        return scales / 2 + sizes * torch.finfo(torch.float32).eps

    def check_values(
        self, tensors: Mapping[str, Tensor], shape: tuple[int, int], slots: int
    ) -> None:
        """Return if scales and offsets are as they should be, and no integer below `-largest`.

        One is, where weights are stored bit for bit, which may hold it.

        Raises:
            Reject: they are not.
        """
        super().check_values(tensors, shape, slots)
        if self.offsets == "minima" and not bool(tensors["minima"].isfinite().all()):
            raise Reject("minima holds one that is not finite")
        if self.offsets == "zero_points" and bool((tensors["zero_points"] > self.levels).any()):
            raise Reject(f"zero_points holds one above {self.levels}")
        if self.offsets is None and not self.lossless:
            codes = self._load(tensors["values"], slots)
            if bool((codes == 0).any()):
                raise Reject(f"values holds one outside of -{self.largest} to {self.largest}")

    def group_bits(self) -> int:
        """A scale's, and as many for a minimum or 8 for a zero point."""
        scale = super().group_bits()
        return scale + {None: 0, "zero_points": 8, "minima": scale}[self.offsets]

    def coding(self, dtype: torch.dtype) -> Coding:
        """An integer, times the scale of its row or group."""
        is_exact = self.bits == 2 and self.offsets is None and self.scales == dtype
        rounds = self.lossless and dtype != torch.float32 and not is_exact
        return Coding(self.bits, "affine", self.group or 0, self.scales, self.offsets, rounds)

    def _store(self, codes: Tensor) -> Tensor:
        return (codes ^ 128).view(torch.int8) if self.bits == 8 else super()._store(codes)

    def _load(self, values: Tensor, slots: int) -> Tensor:
        if self.bits == 8:
            return values.view(torch.uint8) ^ 128
        return super()._load(values, slots)


@dataclass(frozen=True, eq=False)
class Int2(Integer):
    """Integers of 2 bits."""

    family, bits = "int2", 2


@dataclass(frozen=True, eq=False)
class Int3(Integer):
    """Integers of 3 bits."""

    family, bits = "int3", 3


@dataclass(frozen=True, eq=False)
class Int4(Integer):
    """Integers of 4 bits."""

    family, bits = "int4", 4


@dataclass(frozen=True, eq=False)
class Int5(Integer):
    """Integers of 5 bits."""

    family, bits = "int5", 5


@dataclass(frozen=True, eq=False)
class Int6(Integer):
    """Integers of 6 bits."""

    family, bits = "int6", 6


@dataclass(frozen=True, eq=False)
class Int7(Integer):
    """Integers of 7 bits."""

    family, bits = "int7", 7


@dataclass(frozen=True, eq=False)
class Int8(Integer):
    """Integers of 8 bits."""

    family, bits = "int8", 8


INTEGERS: tuple[type[Integer], ...] = (Int2, Int3, Int4, Int5, Int6, Int7, Int8)


@dataclass(frozen=True, eq=False)
class Ternary(Integer):
    """`-scale`, 0 or `scale`, in 2 bits, the code 0 standing for none.

    What is rounded: values beyond 0.7 of the mean magnitude of their group become the mean of those
    that are, with their sign (ternary weight networks, arXiv 1605.04711). So values are cut off.
    """

    family, bits, least = "ternary", 2, 1

    def _rounded(self, values: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        groups, count = places.groups(self.group), places.shape[0] * self.count(places.shape[1])

        def means(sizes: Tensor, kept: Tensor) -> Tensor:
            total = torch.zeros(count, dtype=torch.float64).index_add_(0, groups, sizes * kept)
            return total / torch.zeros_like(total).index_add_(0, groups, kept).clamp_(min=1)

        sizes = values.double().abs()
        kept = sizes > 0.7 * means(sizes, torch.ones_like(sizes))[groups]
        scales = means(sizes, kept.double()).float()
        codes = torch.where(kept, values.sign(), 0.0) + 2
        return codes.to(torch.uint8), self._scales(scales, 1), scales

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """None: values are cut off."""
        return torch.tensor(float("inf"))


COMPONENTS = (
    *(codec(group) for codec in (Int8, Int4) for group in (None, 32, 64, 128)),
    Int4(32, torch.float16, offsets="minima"),
    Int4(128, offsets="zero_points"),
    Int2(32, offsets="minima"),
    Int3(32, offsets="zero_points"),
    *(codec() for codec in (Int5, Int6, Int7, Ternary)),
)
