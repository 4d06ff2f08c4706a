"""`fp8`: floats of 8 bits, as they are or times a scale a row or group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.codecs.fit_scaled import fit_scaled
from sparsecompile.codecs.parameters import choice
from sparsecompile.codecs.scaled import Scaled
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places

_FLOATS = {4: torch.float8_e4m3fn, 5: torch.float8_e5m2}


@dataclass(frozen=True, eq=False)
class Fp8(Scaled):
    """Floats of 8 bits: `weight = scale * float`, the product in float32, or the float itself.

    `values` are the bits of the floats, `[slots]` uint8; without scales there is no tensor
    `scales`. What is rounded has the group's largest magnitude over the largest float as its scale,
    rounded up to the dtype of scales, and takes the nearest float.

    Attributes:
        exponent: bits of the exponent: 4, e4m3fn, or 5, e5m2.
        unscaled: whether there are no scales.
    """

    exponent: int = choice(4, {"e4m3": 4, "e5m2": 5})
    unscaled: bool = choice(False, {"unscaled": True})

    family, bits = "fp8", 8

    def __post_init__(self) -> None:
        """Check group and scales.

        Raises:
            ValueError: they cannot be, or are there although there are none.
        """
        super().__post_init__()
        if self.unscaled and (self.group is not None or self.scales != torch.bfloat16):
            raise ValueError("fp8 has scales, or is unscaled")

    @property
    def _float(self) -> torch.dtype:
        return _FLOATS[self.exponent]

    @property
    def _top(self) -> float:
        return torch.finfo(self._float).max

    def _limit(self) -> float:
        return self._top * (1 if self.unscaled else torch.finfo(self.scales).max)

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """`values`, and `scales` if there are some.

        Raises:
            Reject: it is lossless, and a group holds other values.
        """
        if self.unscaled:
            return {"values": self._unscaled(values, places).view(torch.uint8)}
        if self.lossless:
            # Half of a float times twice the scale is the same: those of the top half will do.
            known = torch.arange(256).to(torch.uint8).view(self._float).float()
            tops = known[(known > self._top / 2) & (known <= self._top)].flip(0).tolist()
            floats, scales = fit_scaled(self, tops, self._nearest, values, places)
        else:
            scales = self._scales(self._largest(values.float(), places), int(self._top), up=True)
            floats = values.float() / scales.float()[places.groups(self.group)]
        shape = places.shape[0], self.count(places.shape[1])
        return {
            "values": floats.to(self._float).view(torch.uint8),
            "scales": scales.view(shape),
        }

    def _nearest(self, numbers: Tensor) -> Tensor:
        return numbers.clamp(-self._top, self._top).to(self._float).float()

    def _unscaled(self, values: Tensor, places: Places) -> Tensor:
        """Values as floats of 8 bits.

        Raises:
            Reject: they are to be stored bit for bit, and one is no such float.
        """
        floats = values.to(self._float)
        off = (floats.to(values.dtype) != values) & self.lossless
        if bool(off.any()):
            slot = int(off.nonzero()[0])
            row, column = int(places.rows[slot]), int(places.columns[slot])
            raise Reject(f"row {row}, column {column} holds {float(values[slot]):g}, no {self}")
        return floats

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """`scales * values` in float32, then rounded to `dtype`."""
        floats = tensors["values"].view(self._float).float()
        if not self.unscaled:
            floats = floats * self._by_slot(tensors["scales"], places)
        return floats.to(dtype)

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """Half the distance of two floats, times the scale."""
        info = torch.finfo(self._float)
        floats = tensors["values"].view(self._float).float().abs()
        half = (floats * (info.eps / 2)).clamp_(min=info.smallest_normal * info.eps / 2)
        return half if self.unscaled else half * self._by_slot(tensors["scales"], places)

    def coding(self, dtype: torch.dtype) -> Coding:
        """A float of 8 bits, times the scale of its row or group if there is one."""
        rounds = self.lossless and dtype != torch.float32 and not self.unscaled
        group = None if self.unscaled else self.group or 0
        return Coding(8, "fp8", group, self.scales, rounds=rounds, exponent=self.exponent)

    def group_bits(self) -> int:
        """A scale's, or none."""
        return 0 if self.unscaled else super().group_bits()


COMPONENTS = (Fp8(),)
