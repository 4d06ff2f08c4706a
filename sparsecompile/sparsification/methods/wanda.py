"""`wanda`: what is small, or reads what is small, goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.method import Method, Problem


@dataclass(frozen=True)
class Wanda(Method):
    """Keeps the largest `|w| |x|`: pruning by weights and activations (arXiv 2306.11695)."""

    name: ClassVar[str] = "wanda"

    def solve(self, problem: Problem) -> Tensor:
        """Cut, and round."""
        return problem.keep(problem.mask(problem.weight * problem.norms))


COMPONENTS = (Wanda(),)
