"""`chunked(c)`: the keys of the query's own chunk, as of Llama 4."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Chunked(IntervalPattern):
    """`q // size == kv // size`."""

    size: int

    family = "chunked"

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            OptionError: it is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of one chunk."""
        return q // self.size == kv // self.size

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Those of the chunk."""
        first = q // self.size * self.size
        return first, first + self.size


COMPONENTS = (Chunked(256),)
