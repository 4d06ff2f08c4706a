"""Which integers, groups and scales a weight was rounded to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsecompile.codecs.grid import Grid, fit
from sparsecompile.codecs.integer import INTEGERS, Integer, Ternary
from sparsecompile.codecs.sample import Sample
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coding import Offsets
from sparsecompile.formats.detector import Detector
from sparsecompile.formats.occupancy import Occupancy

GROUPS = (16, 32, 64, 128, 256, None)
"""Columns that share a scale, as quantisers have them, and whole rows."""
_SCALES = (torch.float16, torch.bfloat16, torch.float32)
_OFFSETS: tuple[Offsets | None, ...] = (None, "zero_points", "minima")
FEW = 24
"""So many of 32 values differ at most, on average, where there are up to 5 bits."""
_LARGEST = (127, 128, 126, 32, 31)
"""What quantisers to more bits make the largest magnitude of a group, times its scale."""
_WIDEST = (255, 63)
"""The same of the distance between its smallest and its largest value."""


class IntegerDetector(Detector):
    """Integers of 2 to 8 bits, without offsets or with zero points or minima.

    Sizes of groups are those of `GROUPS`. In a group the largest magnitude, or the distance of
    smallest and largest value, is some number of steps: all numbers up to 31 are tried, and of
    larger ones those that quantisers give.
    """

    name = "integers"

    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """See `Detector`."""
        sample = Sample(weight)
        for few in (True, False) if sample.window <= FEW else (False,):
            for group in _groups(sample, few):
                groups = sample.groups(group)
                for codec in _narrowest(group, _distinct(groups)):
                    if _holds(codec.grid, groups, _tried(codec.grid)):
                        return list(_and_wider(codec))
        row, value = int(sample.places[0]), float(sample.rows[0, 0])
        raise Reject(f"row {row}, column 0 holds {value:g}, on no grid of 256 steps")


def _groups(sample: Sample, few: bool) -> Iterator[int | None]:
    """How many columns may share a scale, None for whole rows; with few steps, or with many."""
    found: list[int | None] = []
    for group in GROUPS:
        try:
            groups = sample.groups(group)
        except Reject:
            continue
        minima = Grid(8, group, torch.float32, "minima")
        points = replace(minima, offsets="zero_points")
        if few:
            # Parts of a group fit, too.
            if not any(_holds(grid, groups, range(31, 0, -1)) for grid in (points, minima)):
                break
            found.append(group)
        # Of bfloat16 any group is nearly on a grid of that many steps above its smallest value.
        elif (
            _holds(Grid(8, group, torch.float32, None), groups, _LARGEST)
            or _holds(points, groups, range(255, 31, -1))
            or (groups.dtype != torch.bfloat16 and _holds(minima, groups, _WIDEST))
        ):
            found.append(group)
    return reversed(found)


def _distinct(groups: Tensor) -> int:
    """How many values there are at most in a group."""
    return 1 + int((groups.float().sort(1).values.diff(dim=1) != 0).sum(1).max())


def _narrowest(group: int | None, distinct: int) -> Iterator[Integer]:
    """Codecs with codes for so many values, the smaller first."""
    if distinct <= 3:
        yield from (Ternary(group, scales) for scales in _SCALES)
    for integer in INTEGERS:
        if distinct <= 1 << integer.bits:
            for offsets in _OFFSETS:
                yield from (integer(group, scales, offsets=offsets) for scales in _SCALES)


def _tried(grid: Grid) -> Sequence[int]:
    if grid.bits < 6:
        return grid.spreads
    known = {None: _LARGEST, "minima": _WIDEST, "zero_points": grid.spreads}[grid.offsets]
    return [spread for spread in known if grid.levels < 2 * spread or grid.offsets is None]


def _holds(grid: Grid, groups: Tensor, spreads: Sequence[int]) -> bool:
    """Whether all of some groups are on grids with one of these numbers of steps each."""
    if not bool(_near(grid, groups[:2], torch.tensor(spreads)).any(0).all()):
        return False
    which, place = _near(grid, groups, torch.tensor(spreads)).nonzero().unbind(1)
    if place.unique().numel() < len(groups):
        return False
    found = fit(grid, groups[place], None, torch.tensor(spreads)[which, None])
    return int(place[found.holds].unique().numel()) == len(groups)


def _near(grid: Grid, groups: Tensor, spreads: Tensor) -> Tensor:
    """Whether groups may be on grids with so many steps: `[spreads, groups]` bool; quick."""
    exact = groups.float()
    start: Tensor | float = 0.0
    if grid.offsets == "minima":
        start = exact.amin(1, keepdim=True)
    top = exact.abs().amax(1)
    wide = (exact - start).abs().amax(1)
    steps = exact.sub(start).div(wide.where(wide > 0, 1)[:, None]) * spreads[:, None, None]
    off = steps.sub_(steps.round()).abs_()
    # Of multiples of a step the smaller ones are rounded by less, and that of the step counts less.
    rounded = exact.abs() if grid.offsets != "minima" else top[:, None]
    rounding = torch.finfo(groups.dtype).eps * rounded / wide.where(wide > 0, 1)[:, None]
    return off.sub_(spreads[:, None, None] * rounding).amax(2) <= 1e-3


def _and_wider(codec: Integer) -> Iterator[Codec]:
    """A codec that holds a sample, and those that may hold what is not in it."""
    for integer in (type(codec), *[i for i in INTEGERS if i.bits > codec.bits][:1]):
        for scales in dict.fromkeys((codec.scales, torch.float32)):
            yield integer(codec.group, scales, lossless=True, offsets=codec.offsets)


COMPONENTS = (IntegerDetector(),)
