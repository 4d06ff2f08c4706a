"""`sparsegpt`: columns that come later make up for what is cut or rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparsecompile.sparsification.columns import Sweep, inverse_factor
from sparsecompile.sparsification.method import Method, Problem


@dataclass(frozen=True)
class SparseGPT(Method):
    """SparseGPT (arXiv 2301.00774); onto a grid it is GPTQ (arXiv 2210.17323), or both jointly.

    Where what the masks of magnitude or of Wanda leave has a smaller error, that is taken: greedy
    choices, column by column, may be worse, and never are here.

    Attributes:
        damp: what is added to the squares of inputs, as a share of their mean.
        strip: columns that unstructured and block patterns are chosen for at once.
    """

    damp: float = 0.01
    strip: int = 128

    name: ClassVar[str] = "sparsegpt"

    def solve(self, problem: Problem) -> Tensor:
        """The best of three."""
        assert problem.second is not None
        factor = inverse_factor(problem.second, self.damp).float()
        scores = (problem.weight * problem.norms, problem.weight)
        simple = (problem.keep(problem.mask(score)) for score in scores)
        return problem.best(Sweep(problem, factor, self.strip).run(), *simple)


COMPONENTS = (SparseGPT(),)
