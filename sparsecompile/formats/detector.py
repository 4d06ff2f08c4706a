"""Detector: which codecs may hold a weight bit for bit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sparsecompile.component import Component
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.occupancy import Occupancy


class Detector(Component):
    """Looks at a few values of a weight for what it was rounded to before it was a float.

    What it finds is held against the whole weight before it is used: that is what lossless codecs
    do when they encode.
    """

    name: ClassVar[str]
    """Such as `integers`: what reports call its refusals."""

    @abstractmethod
    def find(self, weight: Occupancy) -> Sequence[Codec]:
        """Lossless codecs that hold the values looked at, the smaller first.

        Quick: it is asked of every weight.

        Raises:
            Reject: there are none; the reason names a place.
        """
