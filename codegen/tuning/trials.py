"""What was measured at one m, with what candidates move and compute, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sparsecompile.codegen.tuning.choose import DENSE
from sparsecompile.codegen.tuning.function import BuiltFunction
from sparsecompile.codegen.tuning.record import Timing
from sparsecompile.codegen.tuning.workbench import Workbench
from sparsecompile.kernels.problem import Contents, Problem, Trial


def trials_at(
    problem: Problem,
    functions: Sequence[BuiltFunction],
    contents: Contents,
    workbench: Workbench,
    rows: int,
    timed: Mapping[str, Timing],
    chosen: str | None,
) -> list[Trial]:
    """A trial for each candidate that is known, the fastest first.

    Args:
        problem: what they solve.
        functions: candidates beside the dense linear.
        contents: a weight.
        workbench: where they were measured.
        rows: m.
        timed: timings by name.
        chosen: name of the one that serves this m.
    """
    # sympy takes a third of a second to import, and not everyone measures.
    from sparsecompile.formats.symbols import m
    from sparsecompile.kernels.cost import Cost

    spec, (n, k) = problem.spec, problem.shape
    kind = "bfloat16" if spec.dtype == torch.bfloat16 else "float32"
    costs = {DENSE: Cost((n * k + m * (n + k)) * spec.dtype.itemsize, 2 * m * n * k, kind)}
    for function in functions:
        if function.name in timed:
            template, schedule = function.variant.template, function.variant.schedule
            costs[function.name] = template.cost(spec, schedule, contents)
    cold, rates = workbench.is_cold(rows), workbench.rates()

    def trial(name: str, timing: Timing) -> Trial:
        cost, rate = costs[name], rates.get(costs[name].kind)
        peak = cost.computed(rows) / (timing.seconds * rate) if rate else None
        moved, is_chosen = cost.moved(rows), chosen == name
        return Trial(rows, name, timing.seconds, timing.noise, moved, is_chosen, cold, peak)

    found = sorted(timed.items(), key=lambda item: (item[1].seconds, item[0]))
    return [trial(name, timing) for name, timing in found if name in costs]
