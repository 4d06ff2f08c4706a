"""Grids that values lie on: scales, offsets and codes found back, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.codecs.groups import Groups
from sparsecompile.formats.coding import Offsets
from sparsecompile.formats.coordinates import Places

AT_ONCE = 1 << 16
"""Values that are looked at together: so many stay in a core's cache."""
_HALVINGS = 12
"""Of what a scale may be, until it is where the values leave most room."""
_NEIGHBOURS = sorted(range(-8, 9), key=abs)
"""Scales around that, which have few bits."""


@dataclass(frozen=True)
class Grid:
    """Integers times scales.

    Attributes:
        bits: of a code.
        group: columns that share a scale, None for whole rows.
        scales: dtype of scales.
        offsets: what scales have beside them, if anything.
        least: the smallest code.
    """

    bits: int
    group: int | None
    scales: torch.dtype
    offsets: Offsets | None
    least: int = 0

    @property
    def largest(self) -> int:
        """The largest integer without offsets."""
        return (1 << self.bits - 1) - 1

    @property
    def levels(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def least_scale(self) -> float:
        """Of groups of one value: the smallest normal number, so that nothing is felt of it."""
        return torch.finfo(self.scales).tiny

    @property
    def spreads(self) -> Sequence[int]:
        """Steps that may lie between zero and the largest magnitude, or smallest and largest."""
        return range(self.levels if self.offsets else self.largest + 1 - self.least, 0, -1)


@dataclass(frozen=True)
class Fit:
    """Groups of values and the grids that they may be on.

    Attributes:
        holds: `[groups]` bool: whether all values of a group are on its grid.
        off: `[groups, columns]` bool: which are not.
        codes: `[groups, columns]` uint8.
        scales: `[groups]` in the dtype of the grid.
        offsets: `[groups]`: minima in that dtype, or zero points uint8.
    """

    holds: Tensor
    off: Tensor
    codes: Tensor
    scales: Tensor
    offsets: Tensor


def fit_integers(grid: Grid, values: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
    """Codes `[slots]` of integers, and scales and offsets of all groups.

    Raises:
        Reject: a group of values is on no such grid.
    """
    groups = Groups(values, places, grid.group)
    count, size = groups.values.shape
    codes = torch.empty(count, size, dtype=torch.uint8)
    scales = torch.empty(count, dtype=grid.scales)
    offsets = torch.empty(count, dtype=grid.scales if grid.offsets == "minima" else torch.uint8)
    spreads = Counter(dict.fromkeys(_spreads(grid, values.dtype), 0))
    step = max(1, AT_ONCE // size)
    for first in range(0, count, step):
        left = torch.arange(first, min(first + step, count))
        for spread, _ in spreads.most_common():
            found = fit(grid, groups.values[left], groups.there_in(left), spread)
            held = left[found.holds]
            codes[held], scales[held] = found.codes[found.holds], found.scales[found.holds]
            offsets[held] = found.offsets[found.holds]
            spreads[spread] += held.numel()
            left = left[~found.holds]
            if not left.numel():
                break
        else:
            bad = left[:1]
            off = [fit(grid, groups.values[bad], groups.there_in(bad), s).off for s in spreads]
            nearest = min(off, key=lambda off: int(off.sum()))
            column = int(nearest[0].to(torch.uint8).argmax())
            raise groups.refusal(
                int(bad), column, f"on no grid of {grid.levels + 1 - grid.least} steps"
            )
    return groups.by_slot(codes, grid.largest + 1), scales, offsets


def _spreads(grid: Grid, dtype: torch.dtype) -> Sequence[float]:
    if grid.bits > 5 and dtype == torch.bfloat16:
        # The largest value is so far from what was rounded that it may be some steps off.
        return [*grid.spreads, *(grid.spreads[0] - i / 16 for i in range(-16, 48))]
    return grid.spreads


def fit(grid: Grid, values: Tensor, there: Tensor | None, spread: float | Tensor) -> Fit:
    """The grids with so many steps from zero to the largest magnitude of a group.

    With minima from its smallest value to its largest.

    Args:
        grid: of the codes and scales that there are.
        values: `[groups, columns]`.
        there: where values count, None for everywhere; elsewhere they are zero.
        spread: how many steps, or `[groups, 1]`.
    """
    # Float32 arithmetic finds what has few bits, whether scales or values.
    is_wide = values.dtype == grid.scales == torch.float32
    exact = values.to(torch.float64 if is_wide else torch.float32)
    if grid.offsets == "minima":
        return _fit_minima(grid, values, exact, there, spread)
    return _fit_multiples(grid, values, exact, spread)


def _fit_multiples(grid: Grid, values: Tensor, exact: Tensor, spread: float | Tensor) -> Fit:
    top = exact.abs().amax(1, keepdim=True)
    step = torch.where(top == 0, grid.least_scale, top / spread)
    if _is_direct(grid, values):
        scales = _stored(grid, values, step)
        steps = (exact / scales.float()).round_()
    else:
        steps = (exact / step).round_()
        if grid.bits > 5 and values.dtype == torch.bfloat16:
            # Neighbouring integers are one value there: the mean tells them apart.
            total = exact.abs().sum(1, keepdim=True)
            for _ in range(2):
                mean = total / steps.abs().sum(1, keepdim=True)
                steps = (exact / torch.where(top == 0, 1, mean)).round_()
        low, high = bounds(values, steps)
        scales = _stored(grid, values, torch.where(top == 0, grid.least_scale, (low + high) / 2))
    if grid.offsets is None:
        turned = steps.amax(1, keepdim=True) > grid.largest
        scales = torch.where(turned, -scales, scales)
        steps = torch.where(turned, -steps, steps)
        zero = torch.full_like(top, grid.largest + 1)
    else:
        zero = (-steps.amin(1, keepdim=True)).clamp_(min=0)
    return _checked(grid, values, steps * scales.float(), steps + zero, scales, zero)


def _fit_minima(
    grid: Grid, values: Tensor, exact: Tensor, there: Tensor | None, spread: float | Tensor
) -> Fit:
    if there is not None:
        # Places without a slot are wherever the first value is.
        first = there.to(torch.uint8).argmax(1, keepdim=True)
        exact = torch.where(there, exact, exact.gather(1, first))
        values = torch.where(there, values, values.gather(1, first))
    (low, place), high = exact.min(1, keepdim=True), exact.amax(1, keepdim=True)
    is_one = low == high
    if _is_direct(grid, values):
        minima = low.to(grid.scales)
        step = (high - minima.float()) / spread
        scales = _stored(grid, values, torch.where(is_one, grid.least_scale, step))
        steps = ((exact - minima.float()) / scales.float()).round_()
        decoded = steps * scales.float() + minima.float()
        return _checked(grid, values, decoded, steps, scales, minima)
    steps = ((exact - low) * (spread / torch.where(is_one, 1, high - low))).round_()
    below, above = edges(values, exact.dtype)
    least = torch.where(steps == 0, 0, (below - above.gather(1, place)) / steps)
    most = torch.where(steps == 0, torch.inf, (above - below.gather(1, place)) / steps)
    least, most = least.amax(1, keepdim=True), most.amin(1, keepdim=True)

    def at(scales: Tensor, rows: Tensor) -> Fit:
        products = steps[rows] * scales.to(exact.dtype)
        lowest = (below[rows] - products).amax(1, keepdim=True)
        highest = (above[rows] - products).amin(1, keepdim=True)
        minima = ((lowest + highest) / 2).float().to(grid.scales)
        decoded = products.float() + minima.float()
        return _checked(grid, values[rows], decoded, steps[rows], scales, minima)

    middle = torch.where(is_one, grid.least_scale, (least + most) / 2)
    found = at(_stored(grid, values, middle), torch.arange(len(values)))
    left = (~found.holds & (least <= most).squeeze(1)).nonzero().squeeze(1)
    roomy = _roomiest(steps[left], below[left], above[left], least[left], most[left])
    for away in _NEIGHBOURS if left.numel() else ():
        scales = _neighbour(grid, values, _stored(grid, values, roomy), away)
        again = at(scales, left)
        for name in ("holds", "off", "scales", "offsets"):
            getattr(found, name)[left] = getattr(again, name)
        left, roomy = left[~again.holds], roomy[~again.holds]
    return found


def _roomiest(steps: Tensor, below: Tensor, above: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Scales that leave minima most room: `min(above - steps * s) - max(below - steps * s)`.

    That is concave in `s`, and which values it is of tell where it rises.
    """
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        lowest = (below - steps * middle).argmax(1, keepdim=True)
        highest = (above - steps * middle).argmin(1, keepdim=True)
        rises = steps.gather(1, lowest) > steps.gather(1, highest)
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return (low + high) / 2


def _checked(
    grid: Grid, values: Tensor, decoded: Tensor, codes: Tensor, scales: Tensor, offsets: Tensor
) -> Fit:
    """What decodes to the values themselves, with codes that there are."""
    off = decoded.to(values.dtype) != values
    inside = (codes >= grid.least) & (codes <= grid.levels)
    stored = offsets.squeeze(1).to(grid.scales if grid.offsets == "minima" else torch.uint8)
    holds = (inside & ~off).all(1)
    return Fit(holds, off, codes.to(torch.uint8), scales.squeeze(1), stored)


def _is_direct(grid: Grid, values: Tensor) -> bool:
    """Whether values are exact enough to tell their scale by division."""
    return values.dtype == torch.float32 and grid.scales != torch.float32


def bounds(values: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Between which scales `factors` times them are rounded to values: `[groups, 1]` each."""
    below, above = edges(values.abs(), factors.dtype)
    size = factors.abs()
    low = torch.where(size == 0, 0, below / size).amax(1, keepdim=True)
    return low, torch.where(size == 0, torch.inf, above / size).amin(1, keepdim=True)


def edges(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Halfway from values to their neighbours, below and above, in a wider dtype."""
    bits = values.abs().view(torch.int32 if values.dtype == torch.float32 else torch.int16)
    size = values.abs().to(dtype)
    inner, outer = ((bits + step).view(values.dtype).to(dtype) for step in (-1, 1))
    inner, outer = (size + torch.where(bits == 0, -outer, inner)) / 2, (size + outer) / 2
    is_below = values < 0
    return torch.where(is_below, -outer, inner), torch.where(is_below, -inner, outer)


def _spare(grid: Grid, values: Tensor) -> int:
    """Bits of a float32 scale that stay zero: products are exact where sums are rounded twice."""
    is_rounded = grid.offsets == "minima" and values.dtype != torch.float32
    return grid.bits if is_rounded and grid.scales == torch.float32 else 0


def _stored(grid: Grid, values: Tensor, scales: Tensor) -> Tensor:
    """Scales as they are stored."""
    spare, found = _spare(grid, values), scales.float()
    if spare:
        found = (found.view(torch.int32) + (1 << spare - 1) & -(1 << spare)).view(torch.float32)
    return found.to(grid.scales)


def _neighbour(grid: Grid, values: Tensor, scales: Tensor, away: int) -> Tensor:
    """Scales so many steps away."""
    kind = torch.int32 if grid.scales == torch.float32 else torch.int16
    return (scales.view(kind) + (away << _spare(grid, values))).view(grid.scales)
