"""`nf4`: sixteen values of a normal distribution, times a scale a row or group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.codecs.fit_scaled import fit_scaled
from sparsecompile.codecs.scaled import Scaled
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.coordinates import Places

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of the normal distribution, zero among them: QLoRA (arXiv 2305.14314), bitsandbytes."""


@dataclass(frozen=True, eq=False)
class Nf4(Scaled):
    """Places in a table of sixteen: `weight = scale * NF4[code]`, the product in float32.

    What is rounded has the group's largest magnitude as its scale, which is rounded up to the dtype
    of scales, and takes the nearest entry.
    """

    family, bits = "nf4", 4

    def _limit(self) -> float:
        return torch.finfo(self.scales).max

    def encode(self, values: Tensor, places: Places) -> dict[str, Tensor]:
        """`values` and `scales`.

        Raises:
            Reject: it is lossless, and a group holds other values.
        """
        if self.lossless:
            tops = sorted({abs(entry) for entry in NF4}, reverse=True)[:-1]
            entries, scales = fit_scaled(self, tops, _nearest, values, places)
        else:
            scales = self._scales(self._largest(values.float(), places), 1, up=True)
            entries = values.float() / scales.float()[places.groups(self.group)]
        codes = torch.bucketize(entries, _BETWEEN).to(torch.uint8)
        shape = places.shape[0], self.count(places.shape[1])
        return {"values": self._store(codes), "scales": scales.view(shape)}

    def decode(self, tensors: Mapping[str, Tensor], places: Places, dtype: torch.dtype) -> Tensor:
        """`scales * NF4[values]` in float32, then rounded to `dtype`."""
        scales = self._by_slot(tensors["scales"], places)
        codes = self._load(tensors["values"], scales.numel())
        return (torch.tensor(NF4)[codes.int()] * scales).to(dtype)

    def error_bound(self, tensors: Mapping[str, Tensor], places: Places) -> Tensor:
        """Half of the widest distance of entries, times the scale."""
        return self._by_slot(tensors["scales"], places) * ((NF4[1] - NF4[0]) / 2)

    def coding(self, dtype: torch.dtype) -> Coding:
        """A place in the table, times the scale of its row or group."""
        rounds = self.lossless and dtype != torch.float32
        return Coding(4, "table", self.group or 0, self.scales, rounds=rounds, table=NF4)


_TABLE = torch.tensor(NF4)
_BETWEEN = (_TABLE[1:] + _TABLE[:-1]) / 2


def _nearest(numbers: Tensor) -> Tensor:
    return _TABLE[torch.bucketize(numbers, _BETWEEN)]


COMPONENTS = (Nf4(64),)
