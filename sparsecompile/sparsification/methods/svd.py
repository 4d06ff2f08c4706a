"""`svd`: the nearest outputs that weights of a low rank give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.sparsification.method import Method, Problem
from sparsecompile.structures.low_rank import rank_of


@dataclass(frozen=True)
class SVD(Method):
    """A truncation that is whitened by the inputs: what SVD-LLM (arXiv 2403.07378) makes.

    Of all weights of the rank `U U^T W` is the nearest in outputs, for U the largest eigenvectors
    of `W H W^T` and H the moments: no factor of H and no inverse is needed. With `damp` the error
    is never above that of the nearest weight, on any inputs, singular ones too.

    Attributes:
        damp: what is added to the squares of inputs, as a share of their mean.
    """

    damp: float = 0.001

    name: ClassVar[str] = "svd"
    lowers_rank: ClassVar[bool] = True

    def solve(self, problem: Problem) -> Tensor:
        """Truncate each weight."""
        assert problem.second is not None
        scale = problem.second.diagonal().mean()
        eye = torch.eye(len(problem.second)).to(problem.second)
        second = problem.second + (self.damp * scale if scale > 0 else 1.0) * eye
        assert problem.pattern.rank is not None
        parts = problem.weight.split(problem.rows)
        return torch.cat([_truncated(part, second, problem.pattern.rank) for part in parts])


def _truncated(weight: Tensor, second: Tensor, share: float) -> Tensor:
    """Through the smaller side: `weight = basis @ rest`, `rest` `[min(n, k), k]`."""
    basis, rest = torch.linalg.qr(weight.double())
    vectors = torch.linalg.eigh(rest @ second @ rest.T).eigenvectors
    u = vectors[:, -rank_of(weight.shape, share) :]
    made: Tensor = basis @ u @ (u.T @ rest)
    return made.float()


COMPONENTS = (SVD(),)
