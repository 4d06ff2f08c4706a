"""`window(w)`: the last w keys; the sliding window of causal models with `causal & window(w)`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Window(IntervalPattern):
    """`kv > q - size`: keys behind the query count, too, unless `causal` drops them."""

    size: int

    family = "window"

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            OptionError: it is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """From `size - 1` positions before the query on."""
        return kv > q - self.size

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The first of them."""
        return q - self.size + 1, None


COMPONENTS = (Window(256),)
