"""Sweep: weights are cut and rounded column by column, and the other columns make up for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm

import torch
from torch import Tensor

from sparsecompile.codecs.integer import Integer
from sparsecompile.errors import OptionError
from sparsecompile.formats.packed import Format
from sparsecompile.sparsification.method import Problem
from sparsecompile.structures.dense import Dense

_LEAF = 4
"""Columns that are done one by one before what follows them is brought up to date."""


def inverse_factor(second: Tensor, damp: float) -> Tensor:
    """Upper U with `U^T U = H^-1`, for H the moments `[k, k]` with something on the diagonal.

    Inputs that are always zero, or always together, make H singular: `damp` times the mean of the
    diagonal is added to it, ten times as much where that is not enough.
    """
    scale = second.diagonal().mean()
    eye = torch.eye(len(second), dtype=second.dtype, device=second.device)
    failed = 1
    while failed:
        damped = second + (damp * scale if scale > 0 else 1.0) * eye
        # Of the reversed matrix: the factor is upper, and its inverse is U.
        lower, info = torch.linalg.cholesky_ex(damped.flip(0, 1))
        failed, damp = int(info), max(damp, 1e-6) * 10
    factor: Tensor = torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)
    return factor


class Sweep:
    """One pass over the columns of a problem's weights.

    After column j is settled, its error e over `U[j, j]` times `U[j, j:]` is taken from the columns
    that follow: what brings the outputs nearest to what they were. Columns are halved until few are
    left, and what a half owes the other is one product of matrices. On the way down scales and
    masks are chosen, for as many columns as they are shared by, of weights that are up to date.

    Args:
        problem: the weights.
        factor: U, `[k, k]` float32.
        strip: see `SparseGPT`.

    Raises:
        OptionError: scales of the pattern are for columns that split groups or blocks.
    """

    def __init__(self, problem: Problem, factor: Tensor, strip: int) -> None:
        self._problem, self._factor = problem, factor
        pattern, k = problem.pattern, problem.weight.shape[1]
        # Columns are rows here: a column is read from one place.
        self._columns = problem.weight.t().contiguous()
        self._errors = torch.zeros_like(self._columns)
        self._mask = torch.ones_like(self._columns, dtype=torch.bool)
        self._scales: Tensor | None = None
        steps: list[tuple[int, Callable[[int, int], None]]] = []
        group = pattern.codec and min(pattern.codec.group or k, k)
        if pattern.structure is not None:
            width = pattern.width
            if pattern.share is not None:
                # Whole groups: their largest values have to be among those that stay.
                width = lcm(width, group or 1)
                width *= -(-strip // width)
            steps.append((min(width, k), self._choose_mask))
        if group:
            if max(group, pattern.width) % min(group, pattern.width):
                raise OptionError(
                    "pattern",
                    f"pattern '{pattern}' has a scale for {group} columns and zeros for "
                    f"{pattern.width}: one has to divide the other",
                )
            steps.append((group, self._choose_scales))
            self._scales = torch.ones_like(self._columns)
            self._anchors = torch.zeros_like(self._mask)
        self._steps = sorted(steps, key=lambda step: -step[0])

    def run(self) -> Tensor:
        """The new weights, `[n, k]` float32."""
        self._sweep(0, len(self._columns), self._steps)
        return self._columns.t().contiguous()

    def _sweep(
        self, a: int, b: int, steps: Sequence[tuple[int, Callable[[int, int], None]]]
    ) -> None:
        """Settle columns a to b, which are up to date; those that follow are not."""
        width = steps[0][0] if steps else _LEAF
        if b - a > width:
            middle = a + -(-(b - a) // (2 * width)) * width
            self._sweep(a, middle, steps)
            self._columns[middle:b].addmm_(
                self._factor[a:middle, middle:b].t(), self._errors[a:middle], alpha=-1
            )
            self._sweep(middle, b, steps)
        elif steps:
            steps[0][1](a, b)
            self._sweep(a, b, steps[1:])
        else:
            self._settle(a, b)

    def _settle(self, a: int, b: int) -> None:
        for j in range(a, b):
            column = self._columns[j]
            error, kept = self._errors[j], self._on_grid(j, column) * self._mask[j]
            torch.sub(column, kept, out=error).div_(self._factor[j, j])
            column.copy_(kept)
            if j + 1 < b:
                self._columns[j + 1 : b].addr_(self._factor[j, j + 1 : b], error, alpha=-1)

    def _on_grid(self, j: int, column: Tensor) -> Tensor:
        codec, scales = self._problem.pattern.codec, self._scales
        if codec is None or scales is None:
            return column
        integers = (column / scales[j]).round_().clamp_(-codec.largest, codec.largest)
        return torch.where(self._anchors[j], column.sign() * codec.largest, integers) * scales[j]

    def _choose_mask(self, a: int, b: int) -> None:
        """By what cutting each value alone would add to the error: the square of `w / U[j, j]`."""
        scores = self._columns[a:b] / self._factor.diagonal()[a:b, None]
        if self._scales is not None:
            scores.masked_fill_(self._anchors[a:b], torch.inf)
        self._mask[a:b] = self._problem.mask(scores.t()).t()

    def _choose_scales(self, a: int, b: int) -> None:
        """Those that the codec gives the columns as they are.

        The largest value stays the largest, its anchor: from any other the codec would read another
        scale.
        """
        codec, scales = self._problem.pattern.codec, self._scales
        assert codec is not None
        assert scales is not None
        kept = torch.where(self._mask[a:b], self._columns[a:b], 0.0)
        scales[a:b] = _scales(codec, kept.t()).t()
        self._anchors[a:b].scatter_(0, kept.abs().argmax(0, keepdim=True), True)


def _scales(codec: Integer, weight: Tensor) -> Tensor:
    """The scale of every row of a weight `[n, c]` that is one group: `[n, 1]` float32."""
    packed = Format(Dense(), codec).pack(weight.contiguous().cpu(), exact=False)
    return packed.values["scales"].float().to(weight.device)
