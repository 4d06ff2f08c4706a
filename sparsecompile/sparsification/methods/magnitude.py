"""`magnitude`: what is small goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Problem
from sparsecompile.sparsification.scored import Scored


@dataclass(frozen=True)
class Magnitude(Scored):
    """Keeps the largest `|w|`; needs no calibration."""

    name: ClassVar[str] = "magnitude"
    calibrated: ClassVar[bool] = False

    def scores(self, problem: Problem) -> Tensor:
        """The weights."""
        return problem.weight


COMPONENTS = (Magnitude(),)
