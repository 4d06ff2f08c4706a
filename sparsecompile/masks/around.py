"""`around(w)`: the keys at most w positions away, on both sides."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Around(IntervalPattern):
    """`|q - kv| <= distance`, as of ModernBERT and, with `global`, of Longformer.

    Beltagy et al. (arXiv 2004.05150).
    """

    distance: int

    family = "around"

    def __post_init__(self) -> None:
        """Check the distance.

        Raises:
            OptionError: it is below 0.
        """
        check_positive(self, but=("distance",))

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Inclusive."""
        return (q - kv).abs() <= self.distance

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """As far before the query as behind it."""
        return q - self.distance, q + self.distance + 1


COMPONENTS = (Around(256),)
