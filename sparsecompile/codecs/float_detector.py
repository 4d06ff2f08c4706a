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


class FloatDetector(Detector):
    """`fp8` with scales or without, and `nf4`, of groups as integers have them."""

    name = "floats of few bits"

    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """See `Detector`."""
        sample = Sample(weight)
        for codec in _codecs(sample):
            if not _holds(codec, sample):
                continue
            found = next(c for c in _narrower_first(codec) if _holds(c, sample))
            return [found, codec] if found.scales == torch.float16 else [found]
        row, value = int(sample.places[0]), float(sample.rows[0, 0])
        raise Reject(
            f"row {row}, column 0 holds {value:g}, no float of 8 bits or nf4 with its group"
        )


def _holds(codec: Scaled, sample: Sample) -> bool:
    """Whether some groups of a sample are what a codec stores."""
    groups = sample.groups(codec.group)
    try:
        codec.encode(groups.reshape(-1), Places(Dense(), {}, (len(groups), groups.shape[1])))
    except Reject:
        return False
    return True


def _narrower_first(codec: Scaled) -> Iterator[Scaled]:
    """A codec with scales of fewer bits, and itself."""
    if codec.scales == torch.float32:
        yield from (replace(codec, scales=scales) for scales in (torch.float16, torch.bfloat16))
    yield codec


def _codecs(sample: Sample) -> Iterator[Scaled]:
    """What a sample may be, with scales of float32: these hold whatever narrower ones do."""
    for exponent in (4, 5):
        yield Fp8(exponent=exponent, unscaled=True, lossless=True)
    few = sample.window <= FEW
    for group in reversed(GROUPS):
        try:
            groups = sample.groups(group).float()
        except Reject:
            continue
        sizes = groups.abs()
        upper = torch.where(sizes > sizes.amax(1, keepdim=True) / 2, sizes, 0.0)
        # From half of their largest on, floats have as many magnitudes as their mantissa values.
        different = _different(groups)
        octave = _different(upper, beside_zero=True) if different < 1 << 8 else 1 << 8
        is_table = few and different <= 1 << Nf4.bits
        exponents = [exponent for exponent in (4, 5) if octave <= 1 << 7 - exponent]
        if is_table:
            yield Nf4(group, torch.float32, lossless=True)
        yield from (Fp8(group, torch.float32, lossless=True, exponent=e) for e in exponents)


def _different(groups: Tensor, *, beside_zero: bool = False) -> int:
    """How many values differ in a group at most, zero left out if wanted."""
    ordered = groups.sort(1).values
    steps = (ordered.diff(dim=1) != 0).sum(1) + 1
    return int((steps - (groups == 0).any(1).long() if beside_zero else steps).max())


COMPONENTS = (FloatDetector(),)
