"""What follows from timings: one layout for a weight, and a function for each m."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsecompile.codegen.tuning.record import Timing

DENSE = "dense"
LAYOUT_ROWS = (1, 128)
"""The m by which layouts are compared, whatever m a graph has: all graphs choose the same one."""


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
    functions: Sequence[Function], timings: Mapping[int, Mapping[str, Timing]]
) -> str | None:
    """The layout whose best functions, or the dense linear, lose least over all rows.

    Args:
        functions: all candidates.
        timings: by m, by name of candidate.

    Returns:
        Its name, or None where nothing was measured.
    """
    losses: dict[str, float] = {}
    for layout in dict.fromkeys(f.layout for f in functions):
        loss = 0.0
        for timed in timings.values():
            own = [
                timed[f.name].seconds for f in functions if f.layout == layout and f.name in timed
            ]
            dense = [timed[DENSE].seconds] if DENSE in timed else []
            if not own:
                loss = math.inf
                break
            best = min(t.seconds for t in timed.values())
            loss += math.log(min(own + dense) / best)
        losses[layout] = loss
    finite = {layout: loss for layout, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=finite.__getitem__) if timings and finite else None


def choose_function(
    functions: Sequence[Function], timed: Mapping[str, Timing], *, dense: bool
) -> str | None:
    """The fastest function; the dense linear unless one is faster by more than the noise.

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
    best = min(measured, key=lambda name: timed[name].seconds)
    if dense and DENSE in timed:
        lead = timed[DENSE].seconds - timed[best].seconds
        if lead <= timed[best].noise:
            return DENSE
    return best
