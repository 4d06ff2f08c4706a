"""Grids that values lie on: scales, offsets and codes found back, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.coordinates import Places

if TYPE_CHECKING:
    from sparsecompile.codecs.integer import Integer
    from sparsecompile.codecs.scaled import Scaled

_AT_ONCE = 1 << 16
"""Values that are looked at together: so many stay in a core's cache."""


class Groups:
    """The values of a weight, a row a group.

    Args:
        values: `[slots]`.
        places: row and column of every slot.
        group: columns of a group, None for whole rows.

    Attributes:
        values: `[groups, columns]`; places that no slot has are zero.
        there: `[groups, columns]` bool: where slots are, None where they are everywhere.
    """

    def __init__(self, values: Tensor, places: Places, group: int | None) -> None:
        (n, k), self.count = places.shape, places.count(group)
        self.size = max(group or k, 1)
        self.slots: Tensor | None = None
        self.there: Tensor | None = None
        self._places, self._k = places, k
        if values.numel() == n * self.count * self.size and places.structure.family == "dense":
            self.values = values.view(-1, self.size)
            return
        rows, columns = places.rows, places.columns
        inside = (rows < n) & (columns < k)
        self.slots = torch.where(inside, rows * self.count * self.size + columns, -1)
        self.values = values.new_zeros(n * self.count, self.size)
        self.there = torch.zeros(self.values.shape, dtype=torch.bool)
        self.values.view(-1)[self.slots[inside]] = values[inside]
        self.there.view(-1)[self.slots[inside]] = True

    def by_slot(self, codes: Tensor, otherwise: int = 0) -> Tensor:
        """Codes `[groups, columns]` of all slots, `[slots]`; those outside have another."""
        if self.slots is None:
            return codes.view(-1)
        found = codes.view(-1)[self.slots.clamp(min=0)]
        return torch.where(self.slots >= 0, found, otherwise)

    def refuse(self, group: int, column: int, what: str) -> Reject:
        """That a value is none of a grid."""
        row, index = divmod(group, self.count)
        where = f"row {row}, column {column}" if self.count == 1 else f"row {row}, group {index}"
        return Reject(f"{where} holds {float(self.values[group, column]):g}, {what}")


def fit_grid(codec: Integer, values: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
    """Codes `[slots]` of integers, and scales and offsets of all groups.

    Raises:
        Reject: a group of values is on no grid of the codec.
    """
    groups = Groups(values, places, codec.group)
    codes = torch.empty(groups.values.shape, dtype=torch.uint8)
    scales = torch.empty(len(codes), dtype=codec.scales)
    offsets = torch.zeros(
        len(codes), dtype=scales.dtype if codec.offsets == "minima" else torch.uint8
    )
    step = max(1, _AT_ONCE // groups.size)
    fit = _fit_minima if codec.offsets == "minima" else _fit_multiples
    for first in range(0, len(codes), step):
        left = torch.arange(first, min(first + step, len(codes)))
        for spread in _spreads(codec):
            value = groups.values[left]
            found = fit(codec, value, None if groups.there is None else groups.there[left], spread)
            ok = found.ok
            codes[left[ok]], scales[left[ok]] = found.codes[ok], found.scales[ok]
            if codec.offsets is not None:
                offsets[left[ok]] = found.offsets[ok]
            left = left[~ok]
            if not left.numel():
                break
        else:
            raise groups.refuse(int(left[0]), 0, f"on no grid of {codec}")
    return groups.by_slot(codes), scales, offsets


class _Fit:
    def __init__(self, ok: Tensor, codes: Tensor, scales: Tensor, offsets: Tensor) -> None:
        self.ok, self.codes, self.scales, self.offsets = ok, codes, scales, offsets


def _spreads(codec: Integer) -> Sequence[int]:
    if codec.family == "ternary":
        return (1,)
    return range(codec.levels if codec.offsets else codec.largest + 1, 0, -1)


_DIGITS = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}


def _half(values: Tensor) -> Tensor:
    """Half the distance of a value to the next, float64."""
    exponent = values.float().abs().frexp().exponent - _DIGITS[values.dtype] - 1
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent)


def _between(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    return ((low + high) / 2).float().to(dtype)


def _fit_multiples(codec: Integer, values: Tensor, there: Tensor | None, spread: int) -> _Fit:
    exact, half = values.double(), _half(values)
    size = exact.abs()
    top = size.amax(1, keepdim=True)
    steps = (exact * (spread / torch.where(top == 0, 1.0, top))).round_()
    count = steps.abs()
    high = torch.where(count == 0, torch.inf, (size + half) / count).amin(1)
    low = torch.where(count == 0, 0.0, (size - half) / count).amax(1)
    scales = torch.where(top.squeeze(1) == 0, 1.0, _between(low, high, codec.scales).float())
    least, most = steps.amin(1), steps.amax(1)
    if codec.offsets is None:
        turned = most > codec.largest
        scales = torch.where(turned, -scales, scales)
        steps = torch.where(turned[:, None], -steps, steps)
        zero = torch.full_like(least, codec.largest + 1)
        ok = ~turned | (least >= -codec.largest)
    else:
        zero = (-least).clamp_(min=0)
        ok = most + zero <= codec.levels
    stored = scales.to(codec.scales)
    again = (steps.float() * stored.float()[:, None]).to(values.dtype)
    ok &= (again == values).all(1)
    return _Fit(ok, (steps + zero[:, None]).to(torch.uint8), stored, zero.to(torch.uint8))


def _fit_minima(codec: Integer, values: Tensor, there: Tensor | None, spread: int) -> _Fit:
    exact, half = values.double(), _half(values)
    least = exact if there is None else torch.where(there, exact, torch.inf)
    most = exact if there is None else torch.where(there, exact, -torch.inf)
    low, place = least.min(1, keepdim=True)
    low = torch.where(low == torch.inf, 0.0, low)
    if there is not None:
        exact = torch.where(there, exact, low)
    width = (most.amax(1, keepdim=True) - low).clamp_(min=0)
    steps = ((exact - low) * (spread / torch.where(width == 0, 1.0, width))).round_()
    beside = half + half.gather(1, place)
    high = torch.where(steps == 0, torch.inf, (exact - low + beside) / steps).amin(1)
    least = torch.where(steps == 0, 0.0, (exact - low - beside) / steps).amax(1)
    scales = _between(least, high, codec.scales).float()
    stored = torch.where(width.squeeze(1) == 0, 1.0, scales).to(codec.scales)
    products = steps * stored.double()[:, None]
    rest = exact - products
    minima = _between((rest - half).amax(1), (rest + half).amin(1), codec.scales)
    again = (products.float() + minima.float()[:, None]).to(values.dtype)
    same = again == values
    ok = (same if there is None else same | ~there).all(1)
    return _Fit(ok, steps.to(torch.uint8), stored, minima)


def fit_table(
    codec: Scaled, table: Sequence[float], values: Tensor, places: Places
) -> tuple[Tensor, Tensor]:
    """Codes `[slots]` in a table that is times a scale, and scales of all groups.

    Raises:
        Reject: a group of values is not.
    """
    groups = Groups(values, places, codec.group)
    entries = torch.tensor(table)
    between = (entries[1:].double() + entries[:-1].double()) / 2
    exact, half = groups.values.double(), _half(groups.values)
    top = exact.abs().amax(1, keepdim=True)
    codes = torch.bucketize(exact / torch.where(top == 0, 1.0, top), between)
    count = entries.double().abs()[codes]
    high = torch.where(count == 0, torch.inf, (exact.abs() + half) / count).amin(1)
    low = torch.where(count == 0, 0.0, (exact.abs() - half) / count).amax(1)
    scales = torch.where(top.squeeze(1) == 0, 1.0, _between(low, high, codec.scales).float())
    stored = scales.to(codec.scales)
    again = (entries[codes] * stored.float()[:, None]).to(values.dtype)
    ok = (again == groups.values).all(1)
    if not bool(ok.all()):
        raise groups.refuse(int((~ok).nonzero()[0]), 0, f"on no grid of {codec}")
    return groups.by_slot(codes.to(torch.uint8), 7), stored


def fit_floats(codec: Any, values: Tensor, places: Places) -> Tensor:
    """Scales of all groups, float32.

    Raises:
        Reject: a group of values is no float of the codec times a scale.
    """
    groups = Groups(values, places, codec.group)
    raise groups.refuse(0, 0, f"on no grid of {codec}")
