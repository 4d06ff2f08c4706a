"""What follows from timings: one layout for a weight, and a function for each range of m."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.variant import Function
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.problem import DenseUse, Problem

DENSE = "dense"


def choose_layout(
    functions: Sequence[Function],
    timings: Mapping[int, Mapping[str, Timing]],
    *,
    dense: bool,
) -> str | None:
    """The layout whose best functions, or the dense linear, lose least over all rows.

    Args:
        functions: all candidates.
        timings: by m, by name of candidate.
        dense: whether the dense linear may be chosen where a layout's functions are slower.

    Returns:
        Its name, or None where no layout was measured at every m.
    """
    losses: dict[str, float] = {}
    for layout in dict.fromkeys(f.layout for f in functions):
        names = [f.name for f in functions if f.layout == layout]
        measured = [[timed[n].seconds for n in names if n in timed] for timed in timings.values()]
        if not all(measured):
            continue
        others = [[t[DENSE].seconds] if dense and DENSE in t else [] for t in timings.values()]
        # The sum of logarithms compares the products of times: every m counts alike.
        losses[layout] = sum(
            math.log(min(own + other)) for own, other in zip(measured, others, strict=True)
        )
    return min(losses, key=losses.__getitem__) if timings and losses else None


def choose_function(
    functions: Sequence[Function], timed: Mapping[str, Timing], *, dense: bool
) -> str | None:
    """The fastest function; of those faster than the dense linear by more than the noise, or it.

    Args:
        functions: candidates that read the chosen layout.
        timed: timings by name.
        dense: whether the dense linear may be chosen.

    Returns:
        A name, `DENSE`, or None where none of the functions was measured.
    """
    measured = [f.name for f in functions if f.name in timed]
    if not measured:
        return None
    if dense and DENSE in timed:
        least = timed[DENSE].seconds
        measured = [n for n in measured if least - timed[n].seconds > timed[n].noise]
    return min(measured, key=lambda name: timed[name].seconds, default=DENSE)


def last_row(low: int, high: int, wins: Callable[[int], bool], steps: int = 3) -> int:
    """The largest m found, by bisection, at which a choice still wins.

    Args:
        low: an m at which it wins.
        high: a larger one at which it does not.
        wins: whether it wins at an m in between.
        steps: how many m are looked at, at most.
    """
    for _ in range(steps):
        middle = (low + high) // 2
        if middle == low:
            break
        if wins(middle):
            low = middle
        else:
            high = middle
    return low


def choose_for_rows(
    problem: Problem,
    functions: Sequence[Function],
    timings: Mapping[int, Mapping[str, Timing]],
) -> dict[int, str]:
    """What is chosen for each m of a problem at which something was measured.

    Args:
        problem: what is needed.
        functions: candidates that read the chosen layout.
        timings: by m, by name of candidate.
    """
    choices = _choices(problem, functions, timings, dense=problem.dense is not DenseUse.NEVER)
    if problem.dense is DenseUse.ALONE and set(choices.values()) != {DENSE}:
        choices = _choices(problem, functions, timings, dense=False)
    return choices


def _choices(
    problem: Problem,
    functions: Sequence[Function],
    timings: Mapping[int, Mapping[str, Timing]],
    *,
    dense: bool,
) -> dict[int, str]:
    choices = {m: choose_function(functions, timings[m], dense=dense) for m in problem.rows}
    return {m: choice for m, choice in choices.items() if choice is not None}


def join(functions: Sequence[Function], choices: Mapping[int, str]) -> tuple[Range, ...]:
    """Choices as ranges of m, each up to its own m, the last without an end; equal ones joined.

    Args:
        functions: candidates that read the chosen layout, one that serves any m among them.
        choices: names by rising m.
    """
    by_name = {f.name: f for f in functions}
    unlimited = next(f for f in functions if f.largest_m is None)
    last = max(choices)
    ranges: list[Range] = []
    for m, name in choices.items():
        end = None if m == last else m
        # Where the dense weight is not at hand after all, a function has to stand in.
        part = by_name.get(name, unlimited).range(end, dense=name == DENSE)
        if ranges and replace(ranges[-1], largest_m=end) == part:
            ranges.pop()
        ranges.append(part)
    return tuple(ranges)
