"""TunedCodegen: spec -> candidates -> choice by the Tuner -> kernel, for every kind of device."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import torch

from sparsecompile.codegen.candidates import Candidate, find_candidates
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.tuning.contest import Build
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.timings import Timings
from sparsecompile.codegen.tuning.tuner import Decision, Tuner
from sparsecompile.codegen.tuning.variant import Variant, functions_of
from sparsecompile.codegen.tuning.workbench import Workbench
from sparsecompile.graph.timed import timed
from sparsecompile.kernels.codegen import Codegen
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry

logger = logging.getLogger("sparsecompile")


class TunedCodegen(Codegen):
    """Code generation whose candidates are measured against each other."""

    language: ClassVar[str]
    packers: ClassVar[tuple[type[Packer[Any]], ...]]
    """What makes the layouts that its kernels read."""

    @abstractmethod
    def workbench(self, target: Target, registry: Registry) -> Workbench:
        """Where candidates are measured."""

    @abstractmethod
    def builder(self, target: Target, registry: Registry) -> Build:
        """What makes kernels for a target."""

    def sources_digest(self) -> str:
        """Stands for every file of this package."""
        return sources_digest()

    def candidates(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Candidate]:
        """See `find_candidates`.

        Raises:
            Reject: no candidates; every refusal is in the reason.
        """
        return find_candidates(self.language, spec, target, registry)

    def lower(
        self,
        problems: Mapping[Problem, Callable[[], Sample]],
        target: Target,
        registry: Registry,
    ) -> dict[Problem, Lowering]:
        """Decide each problem and build what serves it; see `Tuner`.

        Problems that differ by their epilogues only are decided once, without them.

        Raises:
            Reject: no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        plain = {p: replace(p, spec=p.spec.plain) for p in problems}
        samples = {plain[p]: sample for p, sample in problems.items()}
        variants = {p.spec: self.variants(p.spec, target, registry) for p in samples}
        searched = {p.spec: self.searched(p.spec, target, registry) for p in samples}
        workbench, build = self.workbench(target, registry), self.builder(target, registry)
        epilogues: dict[KernelSpec, set[KernelSpec]] = {p.spec: set() for p in samples}
        for problem in problems:
            if problem != plain[problem]:
                epilogues[plain[problem].spec].add(problem.spec)

        def finish(problem: Problem) -> Lowering:
            found = decisions[plain[problem]]
            kernel = None
            if found.variants:
                kernel = self._with_epilogue(problem.spec, found, target, registry)
            return Lowering(
                kernel, found.trials, found.reason, found.dropped, found.is_choice, found.is_open
            )

        def decide(problem: Problem, sample: Callable[[], Sample]) -> Decision:
            spec = problem.spec
            ahead = partial(self._with_epilogues, epilogues[spec], target, registry)
            operator = registry.get(Operator, spec.operator)
            choices = variants[spec], searched[spec]
            found = Candidates(operator, problem, *choices, sample, workbench)
            return Tuner(found, Timings(found, build, ahead)).decide()

        started = time.perf_counter()
        with timed("choosing"):
            decisions = {p: decide(p, sample) for p, sample in samples.items()}
        threads = max(1, torch.get_num_threads())
        with timed("building"), ThreadPoolExecutor(max_workers=threads) as pool:
            lowered = dict(zip(problems, pool.map(finish, problems), strict=True))
        logger.info("chose and built kernels in %.1f s", time.perf_counter() - started)
        return lowered

    def variants(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Variant]:
        """Every candidate x schedule for a spec, rendered.

        Raises:
            Reject: there are none.
        """
        return self._rendered(lambda packer: packer.schedules(spec, target), spec, target, registry)

    def searched(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Variant]:
        """Every candidate x schedule that a full search looks at, rendered.

        Raises:
            Reject: there are none.
        """
        return self._rendered(lambda packer: packer.search(spec, target), spec, target, registry)

    def _rendered(
        self,
        schedules: Callable[[Packer], Sequence[Schedule]],
        spec: KernelSpec,
        target: Target,
        registry: Registry,
    ) -> list[Variant]:
        """Every candidate with each of these schedules."""
        return [
            self.variant(spec, packer, schedule, target, registry)
            for packer in self._packers(spec, target, registry)
            for schedule in schedules(packer)
        ]

    def variant(
        self,
        spec: KernelSpec,
        packer: Packer,
        schedule: Schedule,
        target: Target,
        registry: Registry,
    ) -> Variant:
        """A template and schedule, rendered; or a library call."""
        return _variant(spec, packer, schedule, target, registry, registry.revision)

    def build(
        self,
        spec: KernelSpec,
        packer: Packer,
        schedule: Schedule,
        target: Target,
        registry: Registry,
    ) -> Kernel:
        """The kernel of one template, or library call, and schedule, which serves every m.

        Raises:
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        variant = self.variant(spec, packer, schedule, target, registry)
        ranges = tuple(f.range(f.largest_m) for f in functions_of((variant,)))
        return self.builder(target, registry)(spec, (variant,), ranges)

    def _packers(self, spec: KernelSpec, target: Target, registry: Registry) -> list[Packer]:
        """The candidates that make a layout, best guess first."""
        found = self.candidates(spec, target, registry)
        packers = (c[0] if isinstance(c, tuple) else c for c in found)
        return list(dict.fromkeys(p for p in packers if isinstance(p, self.packers)))

    def _with_epilogues(
        self, specs: Iterable[KernelSpec], target: Target, registry: Registry, variant: Variant
    ) -> list[Callable[[], Kernel]]:
        """What builds a variant with the epilogues of these specs."""
        template, schedule = variant.template, variant.schedule
        return [partial(self.build, spec, template, schedule, target, registry) for spec in specs]

    def _with_epilogue(
        self, spec: KernelSpec, decision: Decision, target: Target, registry: Registry
    ) -> Kernel:
        """The decided kernel for a spec that may have an epilogue."""
        renamed: dict[str, str] = {}
        variants = []
        for plain in decision.variants:
            variant = self.variant(spec, plain.template, plain.schedule, target, registry)
            renamed[plain.source_name] = variant.source_name
            variants.append(variant)
        ranges = tuple(replace(r, source=renamed[r.source]) for r in decision.ranges)
        return self.builder(target, registry)(spec, tuple(variants), ranges)


@lru_cache(maxsize=4096)
def _variant(
    spec: KernelSpec,
    packer: Packer,
    schedule: Schedule,
    target: Target,
    registry: Registry,
    revision: int,
) -> Variant:
    """Rendered once for all weights and graphs: a spec has dozens of variants."""
    source = None
    if isinstance(packer, Template):
        source = packer.render(spec, schedule, target, registry)
    return Variant(packer, schedule, source)
