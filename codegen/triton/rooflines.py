"""The cost model's word on GPUs: rooflines in the place of timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsecompile.codegen.tuning.choose import DENSE, choose_for_rows, choose_layout, join
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.variant import Function, Variant, functions_of
from sparsecompile.codegen.tuning.workbench import Guess, Limits
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.gpu import GPU
from sparsecompile.kernels.problem import DenseUse, Problem

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

LEAD = 1.05
"""The dense linear serves what is not predicted to be faster than it by this factor."""


def guess(
    problem: Problem[Any], variants: Sequence[Variant], sample: Sample, dense: Cost, gpu: GPU
) -> Guess:
    """What would be chosen if everything took as long as its roofline says.

    Args:
        problem: what is needed.
        variants: at least one.
        sample: one of those that the problem stands for.
        dense: what the baseline has to do.
        gpu: where it would run.
    """
    functions, limits = functions_of(variants), limits_of(gpu)
    timings = {
        rows: predict(problem, functions, sample, dense, limits, rows)
        for rows in (*problem.layout_rows, *problem.rows)
    }
    by_layout = {rows: timings[rows] for rows in problem.layout_rows}
    layout = choose_layout(functions, by_layout, dense=problem.dense is DenseUse.ANYWHERE)
    functions = [f for f in functions if f.layout == layout]
    ranges = join(functions, choose_for_rows(problem, functions, timings))
    leads = (f"m={rows} {_lead(functions, timings[rows]):.2g}x" for rows in problem.rows)
    return Guess(ranges, f"rooflines of {gpu.model}: {', '.join(leads)}")


def limits_of(gpu: GPU) -> Limits:
    """By the vendor's data sheet."""
    return Limits(gpu.bandwidth, gpu.rates)


def predict(
    problem: Problem[Any],
    functions: Sequence[Function],
    sample: Sample,
    dense: Cost,
    limits: Limits,
    rows: int,
) -> dict[str, Timing]:
    """What functions that serve an m, and the dense baseline, take at least, by name."""
    spec = problem.spec
    own = replace(dense, kind=str(spec.dtype).removeprefix("torch."))
    found = {DENSE: Timing(limits.seconds(own, rows), 0.0)}
    for function in functions:
        if function.serves(rows):
            variant = function.variant
            cost = variant.template.cost(spec, variant.schedule, sample)
            seconds = limits.seconds(cost, rows)
            found[function.name] = Timing(seconds, (LEAD - 1) * seconds)
    return found


def _lead(functions: Sequence[Function], timed: dict[str, Timing]) -> float:
    best = min(timed[f.name].seconds for f in functions if f.name in timed)
    return timed[DENSE].seconds / best
