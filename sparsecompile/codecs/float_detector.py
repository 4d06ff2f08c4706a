"""Which floats of 8 bits, or entries of NF4, a weight was rounded to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsecompile.codecs.fp8 import Fp8
from sparsecompile.codecs.integer_detector import FEW, GROUPS
from sparsecompile.codecs.nf4 import Nf4
from sparsecompile.codecs.sample import Sample
from sparsecompile.codecs.scaled import Scaled
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coordinates import Places
from sparsecompile.formats.detector import Detector
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.structures.dense import Dense

_SCALES = (torch.float16, torch.bfloat16, torch.float32)


class FloatDetector(Detector):
    """`fp8` with scales or without, and `nf4`, of groups as integers have them."""

    name = "floats of few bits"

    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """See `Detector`."""
        sample = Sample(weight)
        for codec in _codecs(sample):
            try:
                groups = sample.groups(codec.group)
                shape = len(groups), groups.shape[1]
                codec.encode(groups.reshape(-1), Places(Dense(), {}, shape))
            except Reject:
                continue
            wider = () if codec.scales != torch.float16 else (torch.float32,)
            return [codec, *(replace(codec, scales=scales) for scales in wider)]
        row, value = int(sample.places[0]), float(sample.rows[0, 0])
        raise Reject(
            f"row {row}, column 0 holds {value:g}, no float of 8 bits or nf4 with its group"
        )


def _codecs(sample: Sample) -> Iterator[Scaled]:
    for exponent in (4, 5):
        yield Fp8(exponent=exponent, unscaled=True, lossless=True)
    few = sample.window <= FEW
    most = sample.values[1]
    for group in reversed(GROUPS):
        try:
            groups = sample.groups(group).float()
        except Reject:
            continue
        sizes = groups.abs()
        upper = torch.where(sizes > sizes.amax(1, keepdim=True) / 2, sizes, 0.0)
        # From half of their largest on, floats have as many magnitudes as their mantissa values.
        octave = _different(upper, beside_zero=True) if most < 1 << 8 else 1 << 8
        is_table = few and _different(groups) <= 1 << Nf4.bits
        exponents = [exponent for exponent in (4, 5) if octave <= 1 << 7 - exponent]
        for scales in _SCALES:
            if is_table:
                yield Nf4(group, scales, lossless=True)
            yield from (Fp8(group, scales, lossless=True, exponent=e) for e in exponents)


def _different(groups: Tensor, *, beside_zero: bool = False) -> int:
    """How many values differ in a group at most, zero left out if wanted."""
    ordered = groups.sort(1).values
    steps = (ordered.diff(dim=1) != 0).sum(1) + 1
    return int((steps - (groups == 0).any(1).long() if beside_zero else steps).max())


COMPONENTS = (FloatDetector(),)
