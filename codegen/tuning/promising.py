"""Which variants may win, by the cost model: the others are not worth a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.codegen.tuning.limits import Limits
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.problem import LAYOUT_ROWS, Contents, Problem

CHEAPER = 1.05
"""A candidate is left out where another one has to do this much less; less is no difference."""


def promising(
    problem: Problem, variants: Sequence[Variant], contents: Contents, limits: Limits
) -> list[Variant]:
    """Variants without those that another one beats.

    One of the same template does where it is nowhere more expensive: with the same layout at all m
    of the problem, with another one also where others would come, so that of equal ones the layout
    is left that serves them too, and takes less memory.
    What bounds of different templates say is vaguer: only one that reaches less of the machine's
    rate gives way to others.

    Args:
        problem: what is needed.
        variants: all of them.
        contents: a weight.
        limits: what memory and arithmetic take.

    Returns:
        The most promising first.
    """
    spec, layout_rows = problem.spec, {*LAYOUT_ROWS, *problem.layout_rows}
    rows = {*layout_rows, *problem.rows}
    costs = [variant.template.cost(spec, variant.schedule, contents) for variant in variants]
    bounds = [
        {m: limits.seconds(cost, m, variant.template.relative_rate) for m in rows}
        for cost, variant in zip(costs, variants, strict=True)
    ]

    def beats(i: int, j: int) -> bool:
        winner, loser = variants[i], variants[j]
        counted = bounds[i] if winner.layout == loser.layout else layout_rows
        pairs = [(bounds[i][m], bounds[j][m]) for m in counted]
        if winner.template is not loser.template:
            no_worse = all(theirs < own * CHEAPER for theirs, own in pairs)
            return loser.template.relative_rate < winner.template.relative_rate and no_worse
        return all(theirs <= own for theirs, own in pairs) and any(
            theirs * CHEAPER < own for theirs, own in pairs
        )

    places = range(len(variants))
    kept = [j for j in places if not any(beats(i, j) for i in places)]
    order = sorted(kept, key=lambda j: sum(bounds[j][m] for m in problem.layout_rows))
    return [variants[j] for j in order]
