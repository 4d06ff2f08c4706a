"""Which variants may win, by the cost model: the others are not worth a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.codegen.tuning.choose import LAYOUT_ROWS
from sparsecompile.codegen.tuning.limits import Limits
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.problem import Contents
from sparsecompile.spec import KernelSpec

CHEAPER = 1.05
"""A candidate is left out where another one has to do this much less; less is no difference."""


def promising(
    spec: KernelSpec, variants: Sequence[Variant], contents: Contents, limits: Limits
) -> list[Variant]:
    """Variants without those that another one beats.

    One of the same template does where it is nowhere more expensive. What bounds of different
    templates say is vaguer: only one that reaches less of the machine's rate gives way to others.

    Args:
        spec: what they compute.
        variants: all of them.
        contents: a weight.
        limits: what memory and arithmetic take.

    Returns:
        The most promising first.
    """
    bounds = [_bounds(spec, variant, contents, limits) for variant in variants]

    def beats(i: int, j: int) -> bool:
        pairs = list(zip(bounds[i], bounds[j], strict=True))
        winner, loser = variants[i].template, variants[j].template
        if winner is not loser:
            no_worse = all(theirs < own * CHEAPER for theirs, own in pairs)
            return loser.relative_rate < winner.relative_rate and no_worse
        return all(theirs <= own for theirs, own in pairs) and any(
            theirs * CHEAPER < own for theirs, own in pairs
        )

    places = range(len(variants))
    kept = [j for j in places if not any(beats(i, j) for i in places)]
    return [variants[j] for j in sorted(kept, key=lambda j: sum(bounds[j]))]


def _bounds(spec: KernelSpec, variant: Variant, contents: Contents, limits: Limits) -> list[float]:
    cost = variant.template.cost(spec, variant.schedule, contents)
    relative_rate = variant.template.relative_rate
    return [limits.seconds(cost, rows, relative_rate) for rows in LAYOUT_ROWS]
