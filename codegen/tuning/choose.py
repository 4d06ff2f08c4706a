"""What follows from timings: one layout for a weight, and a function for each m."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparsecompile.codegen.tuning.record import Timing

DENSE = "dense"


@dataclass(frozen=True)
class Function:
    """A candidate: a function of a generated source.

    Attributes:
        name: `strips masked=1 ... sc_linear_decode`.
        layout: name of the layout it reads.
    """

    name: str
    layout: str


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
