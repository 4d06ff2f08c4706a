"""`prefix(p)`: the first p keys; with `causal + prefix(p)` that of prefix language models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern
from sparsecompile.masks.positive import check_positive


@dataclass(frozen=True, eq=False)
class Prefix(IntervalPattern):
    """`kv < size`."""

    size: int

    family = "prefix"

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            OptionError: it is below 1.
        """
        check_positive(self)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of every query the same."""
        return kv < self.size

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Where the prefix ends."""
        return None, torch.full_like(q, self.size)


COMPONENTS = (Prefix(16),)
