"""Method: a way to make weights keep a pattern; Problem, the weights that it gets."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.component import Component
from sparsecompile.sparsification.gradients import Gradients
from sparsecompile.sparsification.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights that read the same input and get the same pattern, one above the other.

    Attributes:
        weight: `[n, k]` float32, the rows of all.
        rows: how many are of each.
        pattern: what each is to keep.
        second: mean of `x^T x` over the rows of the input, `[k, k]` float64; None where there is
            no calibration.
        gradients: of the loss, where the method asks for them.
    """

    weight: Tensor
    rows: tuple[int, ...]
    pattern: Pattern
    second: Tensor | None = None
    gradients: Gradients | None = None

    @cached_property
    def norms(self) -> Tensor:
        """Root of the mean square of every column of the input, `[k]` float32."""
        assert self.second is not None
        return self.second.diagonal().sqrt().float()

    def mask(self, scores: Tensor) -> Tensor:
        """Values with the largest magnitudes of score that the pattern keeps, of each weight.

        Args:
            scores: `[n, c]`, of all or some columns.
        """
        # With a fixed share rows know nothing of each other.
        parts = (scores,) if self.pattern.share is None else scores.split(self.rows)
        return torch.cat([self.pattern.mask(part) for part in parts])

    def keep(self, mask: Tensor) -> Tensor:
        """The weights with what a mask keeps of them, on the pattern's grid."""
        kept = torch.where(mask, self.weight, 0.0)
        return torch.cat([self.pattern.round(part) for part in kept.split(self.rows)])

    def errors(self, weight: Tensor) -> Tensor:
        """How far outputs with other weights are from those with these.

        Returns:
            For each weight the root of the squared error over that of its outputs' squares, both
            over the calibration's rows: `[weights]` float32; without calibration that of weights.
        """
        off = self._squares(weight - self.weight)
        return (off / self._whole.clamp(min=torch.finfo(off.dtype).tiny)).sqrt()

    def best(self, *candidates: Tensor) -> Tensor:
        """Of each weight that of several with the smallest error, the first of equal ones."""
        found = torch.stack([self.errors(c) for c in candidates]).argmin(0).tolist()
        parts = [c.split(self.rows) for c in candidates]
        return torch.cat([parts[choice][i] for i, choice in enumerate(found)])

    @cached_property
    def _whole(self) -> Tensor:
        return self._squares(self.weight)

    def _squares(self, weight: Tensor) -> Tensor:
        """Sum of the squares of each weight's outputs: `[weights]`."""
        outputs = weight if self.second is None else weight @ self.second.float()
        squares = (outputs * weight).sum(1)
        return torch.stack([part.sum().clamp(min=0) for part in squares.split(self.rows)])


class Method(Component):
    """A way to make weights keep a pattern; options are the fields of a dataclass.

    What `solve` returns keeps the pattern exactly: `Problem.mask` is how zeros are chosen, and
    `Problem.keep` is all that a method needs which changes no value that stays.
    """

    calibrated: ClassVar[bool] = True
    """Whether it needs `Problem.second`."""
    lowers_rank: ClassVar[bool] = False
    """Whether it makes ranks low: others keep zeros and grids, and it keeps none."""

    differentiated: ClassVar[bool] = False
    """Whether it needs `Problem.gradients`."""

    @abstractmethod
    def solve(self, problem: Problem) -> Tensor:
        """The new weights, `[n, k]` float32."""
