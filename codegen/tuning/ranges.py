"""From timings to ranges of m: what serves each m that a problem names, and those in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparsecompile.codegen.tuning.choose import DENSE, choose_function
from sparsecompile.codegen.tuning.function import BuiltFunction
from sparsecompile.codegen.tuning.record import Timing
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.template import Range


def choose_for_rows(
    problem: Problem,
    functions: Sequence[BuiltFunction],
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
    functions: Sequence[BuiltFunction],
    timings: Mapping[int, Mapping[str, Timing]],
    *,
    dense: bool,
) -> dict[int, str]:
    choices = {m: choose_function(functions, timings[m], dense=dense) for m in problem.rows}
    return {m: choice for m, choice in choices.items() if choice is not None}


def join(functions: Sequence[BuiltFunction], choices: Mapping[int, str]) -> tuple[Range, ...]:
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
