"""How many values a weight, or each of its rows, has."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.codecs.codebook import Codebook
from sparsecompile.codecs.sample import Sample
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.detector import Detector
from sparsecompile.formats.occupancy import Occupancy

_MOST = 256


class CodebookDetector(Detector):
    """Tables of the weight or of each row, of at most 256 values."""

    name = "codebook"

    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """See `Detector`."""
        everywhere, in_row = Sample(weight).values
        if in_row > _MOST:
            raise Reject(f"a row holds {in_row} values, a table {_MOST}")
        whole = [Codebook(bits, lossless=True) for bits in _bits(everywhere)]
        return [*whole, *(Codebook(bits, 1, lossless=True) for bits in _bits(in_row))]


def _bits(values: int) -> tuple[int, ...]:
    """Bits that tell so many values apart, and of the largest table."""
    least = max(1, (values - 1).bit_length())
    return tuple(dict.fromkeys((least, 8))) if values <= _MOST else ()


COMPONENTS = (CodebookDetector(),)
