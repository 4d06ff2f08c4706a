"""`gradient`: what the loss hangs on little goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Method, Problem


@dataclass(frozen=True)
class Gradient(Method):
    """Keeps the largest `|g|`, for g the gradient of the loss."""

    name: ClassVar[str] = "gradient"
    calibrated: ClassVar[bool] = False
    differentiated: ClassVar[bool] = True

    def solve(self, problem: Problem) -> Tensor:
        """Cut, and round."""
        assert problem.gradients is not None
        return problem.keep(problem.mask(problem.gradients.mean))


COMPONENTS = (Gradient(),)
