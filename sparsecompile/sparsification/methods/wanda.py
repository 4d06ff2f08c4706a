"""`wanda`: what is small, or reads what is small, goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Problem
from sparsecompile.sparsification.scored import Scored


@dataclass(frozen=True)
class Wanda(Scored):
    """Keeps the largest `|w| |x|`: pruning by weights and activations (arXiv 2306.11695)."""

    name: ClassVar[str] = "wanda"

    def scores(self, problem: Problem) -> Tensor:
        """The weights times the root mean square of what they read."""
        return problem.weight * problem.norms


COMPONENTS = (Wanda(),)
