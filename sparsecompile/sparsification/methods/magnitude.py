"""`magnitude`: what is small goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Method, Problem


@dataclass(frozen=True)
class Magnitude(Method):
    """Keeps the largest `|w|`; needs no calibration."""

    name: ClassVar[str] = "magnitude"
    calibrated: ClassVar[bool] = False

    def solve(self, problem: Problem) -> Tensor:
        """Cut, and round."""
        return problem.keep(problem.mask(problem.weight))


COMPONENTS = (Magnitude(),)
