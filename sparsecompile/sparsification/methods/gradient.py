"""`gradient`: what the loss hangs on little goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Problem
from sparsecompile.sparsification.scored import Scored


@dataclass(frozen=True)
class Gradient(Scored):
    """Keeps the largest `|g|`, for g the gradient of the loss."""

    name: ClassVar[str] = "gradient"
    calibrated: ClassVar[bool] = False
    differentiated: ClassVar[bool] = True

    def scores(self, problem: Problem) -> Tensor:
        """The gradients."""
        assert problem.gradients is not None
        return problem.gradients.mean


COMPONENTS = (Gradient(),)
