"""`taylor`: what changes the loss little goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.method import Problem
from sparsecompile.sparsification.scored import Scored


@dataclass(frozen=True)
class Taylor(Scored):
    """Keeps the largest `|g w|` (arXiv 1611.06440), or `|g w - f w^2 / 2|` (arXiv 2305.11627).

    How far the loss moves where w becomes zero, to the first or the second order: g is its
    gradient, f the mean of the squares of every batch's, for the diagonal of the Hessian.

    Attributes:
        order: 1 or 2.
    """

    order: int = 1

    name: ClassVar[str] = "taylor"
    calibrated: ClassVar[bool] = False
    differentiated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the order, and the scope."""
        super().__post_init__()
        if self.order not in (1, 2):
            raise OptionError("order", f"the order of Taylor is 1 or 2, not {self.order}")

    def scores(self, problem: Problem) -> Tensor:
        """How far the loss moves."""
        assert problem.gradients is not None
        scores = problem.gradients.mean * problem.weight
        if self.order == 2:
            scores -= problem.gradients.square * problem.weight.square() / 2
        return scores


COMPONENTS = (Taylor(),)
