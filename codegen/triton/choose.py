"""Which function serves which rows, by the cost model: nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.costs import Cost, m
from sparsecompile.gpu import GPU
from sparsecompile.problem import Contents, DenseUse, Problem
from sparsecompile.spec import Schedule
from sparsecompile.template import Range, Source, Template

LEAD = 1.05
"""The dense linear serves what is not predicted to be faster than it by this factor."""


@dataclass(frozen=True)
class Candidate:
    """A template with a schedule, rendered.

    Attributes:
        template: what it comes from.
        schedule: its choices.
        source: the rendered text.
        launches: how its functions are started.
    """

    template: Template
    schedule: Schedule
    source: Source
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Prediction:
    """What a candidate and the dense linear take at one m, at least.

    Attributes:
        rows: m.
        seconds: of the candidate.
        dense: of the dense linear.
    """

    rows: int
    seconds: float
    dense: float

    @property
    def wins(self) -> bool:
        """Whether the candidate is predicted to be faster."""
        return self.seconds * LEAD < self.dense

    def __str__(self) -> str:
        """`m=1 1.7x`."""
        return f"m={self.rows} {self.dense / self.seconds:.2g}x"


@dataclass(frozen=True)
class Choice:
    """What serves a problem.

    Attributes:
        candidate: the template whose layout the weight gets.
        ranges: by rising m; those that the dense linear serves say so.
        reason: in words.
    """

    candidate: Candidate
    ranges: tuple[Range, ...]
    reason: str

    @property
    def is_dense(self) -> bool:
        """Whether the dense linear serves all rows."""
        return all(part.dense for part in self.ranges)


def choose(problem: Problem, candidates: Sequence[Candidate], weight: Contents, gpu: GPU) -> Choice:
    """The candidate that loses least over all rows, and the dense linear where it is no slower.

    Args:
        problem: what is needed.
        candidates: at least one.
        weight: one of those that the problem stands for.
        gpu: where it would run.
    """
    predictions = [predict(problem, candidate, weight, gpu) for candidate in candidates]
    totals = [sum(p.seconds / p.dense for p in rows) for rows in predictions]
    best = min(range(len(candidates)), key=totals.__getitem__)
    candidate, predicted = candidates[best], predictions[best]
    denses = [problem.dense is not DenseUse.NEVER and not p.wins for p in predicted]
    if problem.dense is DenseUse.ALONE and not all(denses):
        denses = [False] * len(predicted)
    ranges: list[Range] = []
    for prediction, dense in zip(predicted, denses, strict=True):
        is_last = prediction is predicted[-1]
        launch = _launch_at(candidate, prediction.rows, unlimited=is_last and problem.is_dynamic)
        end = None if is_last else prediction.rows
        name, schedule = candidate.source.name, candidate.schedule
        part = Range(end, name, launch.symbol, schedule, dense)
        if ranges and _same(ranges[-1], part):
            ranges.pop()
        ranges.append(part)
    said = ", ".join(map(str, predicted))
    return Choice(candidate, tuple(ranges), f"not measured; rooflines of {gpu.model}: {said}")


def predict(problem: Problem, candidate: Candidate, weight: Contents, gpu: GPU) -> list[Prediction]:
    """Rooflines of a candidate and of the dense linear at the rows of a problem."""
    (n, k), dtype = problem.shape, problem.spec.dtype
    cost = candidate.template.cost(problem.spec, candidate.schedule, weight)
    kind = str(dtype).removeprefix("torch.")
    dense = Cost((n * k + m * (n + k)) * dtype.itemsize, 2 * m * n * k, kind)
    return [
        Prediction(rows, _seconds(cost, rows, gpu), _seconds(dense, rows, gpu))
        for rows in problem.rows
    ]


def _seconds(cost: Cost, rows: int, gpu: GPU) -> float:
    return cost.seconds(rows, gpu.bandwidth, gpu.rates[cost.kind])


def _launch_at(candidate: Candidate, rows: int, *, unlimited: bool) -> Launch:
    return next(
        launch
        for launch in candidate.launches
        if launch.largest_m is None or (rows <= launch.largest_m and not unlimited)
    )


def _same(one: Range, other: Range) -> bool:
    """Whether two ranges differ by their ends only; what is dense is the same whoever else may."""
    if one.dense and other.dense:
        return True
    return replace(one, largest_m=None) == replace(other, largest_m=None)
