"""How many values a weight, or each of its rows, has."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.codecs.codebook import Codebook
from sparsecompile.codecs.sample import Sample
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.detector import Detector
from sparsecompile.formats.occupancy import Occupancy

_BITS = (1, 2, 3, 4, 8)
_MOST = 1 << 8
_USES = 4
"""So often a row uses an entry, on average: fewer values are few by chance."""


class CodebookDetector(Detector):
    """Tables of the weight or of each row, of at most 256 values."""

    name = "codebook"

    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """See `Detector`."""
        sample = Sample(weight)
        everywhere, in_row = sample.values
        kept = int(sample.rows.count_nonzero()) // len(sample.rows)
        if in_row > min(_MOST, kept // _USES):
            raise Reject(f"a row holds {in_row} values in {kept} places, a table {_MOST}")
        if sample.rows.abs().unique().count_nonzero() == 1:
            raise Reject("rows hold one magnitude, for which a scale is enough")
        whole = _bits(everywhere) if everywhere <= _MOST else ()
        tables = [*((bits, 0) for bits in whole), *((bits, 1) for bits in _bits(in_row))]
        return [Codebook(bits, rows, lossless=True) for bits, rows in tables]


def _bits(values: int) -> tuple[int, ...]:
    """Bits that tell so many values apart, and of the largest table."""
    return tuple(bits for bits in _BITS if bits == 8 or values <= 1 << bits)[:2]


COMPONENTS = (CodebookDetector(),)
