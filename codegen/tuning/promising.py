"""Candidates of a problem, and which of them may win by the cost model: the others are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sparsecompile.codegen.tuning.choose import DENSE
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.variant import Function, Variant, functions_of
from sparsecompile.codegen.tuning.workbench import Limits, Workbench
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.problem import LAYOUT_ROWS, Problem
from sparsecompile.kernels.trial import Trial
from sparsecompile.operators.operator import Operator

CHEAPER = 1.05
"""A candidate is left out where another one has to do this much less; less is no difference."""


class Candidates:
    """What may serve a problem beside the dense linear.

    Args:
        operator: whose nodes they serve.
        problem: with a spec that has no epilogue.
        variants: the schedules that are measured by default, best guess first.
        searched: those that `full` measures besides.
        sample: makes what they are measured on.
        workbench: where they run.

    Attributes:
        variants: all of them.
        usual: those that are measured by default, fit, and make the layout that is needed.
        functions: those of all variants that fit and make the layout that is needed.
    """

    def __init__(
        self,
        operator: Operator[Any],
        problem: Problem,
        variants: Sequence[Variant],
        searched: Sequence[Variant],
        sample: Callable[[], Sample],
        workbench: Workbench,
    ) -> None:
        self.operator, self.problem = operator, problem
        self.workbench, self._sample = workbench, sample
        self.variants = tuple(dict.fromkeys((*variants, *searched)))
        fit = [v for v in self.variants if problem.layout in ("", v.layout) and v.fits(problem)]
        self.usual = [v for v in variants if v in fit] or fit
        self.functions = functions_of(fit)

    @cached_property
    def contents(self) -> Sample:
        """What they are measured on."""
        return self._sample()

    @cached_property
    def promising(self) -> list[Variant]:
        """The usual ones that may win, the most promising first."""
        limits = self.workbench.limits(measure=self.problem.tune in ("fast", "full"))
        return promising(self.problem, self.usual, self.contents, limits)

    def wants(self, function: Function) -> bool:
        """Whether it has to be measured: everything in `full`, else what may win."""
        return self.problem.tune == "full" or function.variant in self.promising

    def trials(self, rows: int, timed: Mapping[str, Timing], chosen: str | None) -> list[Trial]:
        """What was measured at one m, with what it moves and computes; the fastest first.

        Args:
            rows: m.
            timed: timings by name; what is no candidate any more is passed over.
            chosen: name of the one that serves this m.
        """
        # sympy takes a third of a second to import, and not everyone measures.
        spec = self.problem.spec
        costs = {DENSE: self.operator.dense_cost(self.problem)}
        for function in self.functions:
            if function.name in timed:
                template, schedule = function.variant.template, function.variant.schedule
                costs[function.name] = template.cost(spec, schedule, self.contents)
        cold, rates = self.workbench.is_cold(rows), self.workbench.rates()

        def trial(name: str, timing: Timing) -> Trial:
            cost, rate = costs[name], rates.get(costs[name].kind)
            peak = cost.computed(rows) / (timing.seconds * rate) if rate else None
            moved, is_chosen, is_baseline = cost.moved(rows), chosen == name, name == DENSE
            return Trial(
                rows,
                spec.baseline if is_baseline else name,
                timing.seconds,
                timing.noise,
                moved,
                is_chosen,
                cold,
                peak,
                is_baseline,
            )

        found = sorted(timed.items(), key=lambda item: (item[1].seconds, item[0]))
        return [trial(name, timing) for name, timing in found if name in costs]


def promising(
    problem: Problem, variants: Sequence[Variant], contents: Sample, limits: Limits
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
