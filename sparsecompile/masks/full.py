"""`full`: every query attends to every key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.interval_pattern import IntervalPattern


@dataclass(frozen=True, eq=False)
class Full(IntervalPattern):
    """Every place."""

    family = "full"

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """All."""
        return torch.ones((), dtype=torch.bool)

    def ends(self, q: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """None."""
        return None, None


COMPONENTS = (Full(),)
