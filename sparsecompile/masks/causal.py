"""`causal`: no query attends to keys behind it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern


@dataclass(frozen=True, eq=False)
class Causal(IntervalPattern):
    """`kv <= q`."""

    family = "causal"

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Up to the query's own position."""
        return kv <= q

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Behind the query."""
        return None, q + 1


COMPONENTS = (Causal(),)
