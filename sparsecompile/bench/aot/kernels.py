"""Kernels ahead of time: what the compilers make of each function of a case, and its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from sparsecompile.bench.aot.bound import ROWS, Bound, bounds
from sparsecompile.bench.aot.cases import Case, weight_like
from sparsecompile.codegen.triton.fragment import ELEMENTS
from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.analysis import Analysis
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.version import triton_version
from sparsecompile.errors import BuildError
from sparsecompile.kernels.contents import Contents, NoWeight, Sample
from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry


@dataclass(frozen=True)
class KernelAnalysis:
    """One function of a case.

    Attributes:
        case: what it is of.
        launch: how it is started, and for which m.
        analysis: what the compilers made of it; None where they failed.
        failure: what they said then.
        bounds: the roofline against dense, at every m of `ROWS` that it serves.
    """

    case: Case
    launch: Launch
    analysis: Analysis | None
    failure: str
    bounds: tuple[Bound, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Why it is not worth a measurement; empty if it is."""
        return self.analysis.faults if self.analysis is not None else (self.failure,)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        case = self.case
        return {
            "spec": str(case.spec),
            "template": case.template.name,
            "schedule": str(case.schedule),
            "target": case.target.arch,
            "device": case.target.gpu.model,
            "shape": list(case.sizes.values()),
            "symbol": self.launch.symbol,
            "largest_m": self.launch.largest_m,
            "faults": list(self.faults),
            "bounds": [{**asdict(bound), "speedup": bound.speedup} for bound in self.bounds],
            "analysis": None if self.analysis is None else self.analysis.to_dict(),
        }


def analyse_kernels(
    cases: Iterable[Case],
    registry: Registry,
    started: Callable[[Case], None] = lambda case: None,
) -> Iterator[KernelAnalysis]:
    """Compile every function of every case with no GPU, and look at the machine code.

    What was found is kept in the cache folder.

    Args:
        cases: such as `registry_cases(registry, Target.parse("sm_90"))`.
        registry: where their templates and fragments are.
        started: is told of each case before it begins.

    Raises:
        OptionError: nothing can be compiled for a target.
        BuildError: Triton is not installed.
        CacheError: the cache folder cannot be used.
    """
    triton_version()
    for case in cases:
        started(case)
        cost = case.template.cost(case.spec, case.schedule, _sample(case))
        known = bounds(cost, _dense_cost(case, registry), case.target.gpu)
        specializations = case.specializations(registry)
        first = 1
        for launch in case.launches:
            last = launch.largest_m
            served = tuple(b for b in known if first <= b.rows and (last is None or b.rows <= last))
            analysis, failure = None, ""
            try:
                analysis = analyse(specializations[launch.symbol], case.target.arch)
            except BuildError as error:
                if not error.source:
                    raise
                failure = f"does not compile: {' '.join(error.stderr.split())}"
            yield KernelAnalysis(case, launch, analysis, failure, served)
            first = (last or 0) + 1


def _sample(case: Case) -> Sample:
    if not isinstance(case.spec, KernelSpec):
        return NoWeight(case.sizes, 1 - case.zeros)
    return _contents(case.spec, tuple(case.sizes.values()), case.zeros)


def _dense_cost(case: Case, registry: Registry) -> Cost:
    """Of the baseline, at the rate of its dtype on GPUs."""
    spec, sizes = case.spec, case.sizes
    axes, shape = tuple(sizes), tuple(sizes.values())
    problem = Problem(spec, shape, ROWS, True, DenseUse.ANYWHERE, "off", 1.0, axes=axes)
    cost = registry.get(Operator, spec.operator).dense_cost(problem)
    return replace(cost, kind=ELEMENTS[spec.dtype])


@lru_cache(maxsize=1)
def _contents(spec: KernelSpec, shape: tuple[int, ...], zeros: float) -> Contents:
    return Contents(spec.format.pack(weight_like(spec, shape, zeros)))
