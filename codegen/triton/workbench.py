"""TritonWorkbench: a GPU as a Tuner sees it, at hand or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.failures import triton_failures
from sparsecompile.codegen.triton.rooflines import guess, limits_of
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.codegen.triton.timer import REPLAYED_ROWS, GpuTimer
from sparsecompile.codegen.triton.version import triton_version
from sparsecompile.codegen.tuning.measure import Contestant
from sparsecompile.codegen.tuning.variant import Function, Variant
from sparsecompile.codegen.tuning.workbench import Guess, Limits, Workbench
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import Registry


class TritonWorkbench(Workbench):
    """The current GPU, if it is what kernels are made for.

    Args:
        target: a GPU architecture.
        registry: where templates and fragments are.
    """

    def __init__(self, target: Target, registry: Registry) -> None:
        self._target, self._registry = target, registry

    @cached_property
    def device(self) -> torch.device | None:
        """The current GPU; None where there is none, or one of another architecture."""
        if not torch.cuda.is_available():
            return None
        current = torch.device("cuda", torch.cuda.current_device())
        try:
            found = Target.of_gpu(current)
        except Reject:
            return None
        return current if found == self._target else None

    def facts(self) -> Mapping[str, object]:
        """Name and capability of the GPU, and the version of Triton.

        Raises:
            BuildError: Triton is not installed, or interprets instead.
        """
        capability = torch.cuda.get_device_capability(self.device)
        return {
            "target": str(self._target),
            "gpu": torch.cuda.get_device_name(self.device),
            "capability": ".".join(map(str, capability)),
            "triton": triton_version(),
        }

    def limits(self, *, measure: bool) -> Limits:
        """Those of the data sheet."""
        return limits_of(self._target.gpu)

    def is_cold(self, rows: int) -> bool:
        """Always: L2 is emptied before each call."""
        return True

    def contestant(self, run: Callable[[], object], weight: Tensor, rows: int) -> Contestant:
        """Timed by the GPU's own events; a few rows are replayed as a CUDA graph."""
        timer = self._timer
        ready = timer.ready(run, replay=rows <= REPLAYED_ROWS)
        return Contestant(ready, timer.evict, timer.seconds)

    @cached_property
    def _timer(self) -> GpuTimer:
        return GpuTimer(self.device or torch.device("cuda"))

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """Of Triton's compiler, of drivers and of libraries."""
        return triton_failures()

    def faults(self, problem: Problem, functions: Sequence[Function]) -> dict[str, str]:
        """What spills, or does without the matrix units: looked at ahead of time.

        Raises:
            BuildError: Triton is not installed.
            CacheError: the cache folder cannot be used.
        """
        from sparsecompile.codegen.triton.inspection.prune import prune_schedules

        by_template: dict[TritonTemplate[Any], dict[tuple[Schedule, str], str]] = {}
        for function in functions:
            template, schedule = function.variant.template, function.variant.schedule
            if isinstance(template, TritonTemplate):
                names = by_template.setdefault(template, {})
                names[schedule, function.symbol] = function.name
        found: dict[str, str] = {}
        for template, names in by_template.items():
            schedules = dict.fromkeys(schedule for schedule, _ in names)
            target, registry = self._target, self._registry
            # Looked at for one shape: all layers of a model share what was found.
            pruned = prune_schedules(problem.spec, template, schedules, target, registry)
            found |= {names[at]: why for at, why in pruned.dropped.items() if at in names}
        return found

    def guess(self, problem: Problem, variants: Sequence[Variant], contents: Sample) -> Guess:
        """By rooflines: a function, or the dense linear, for each m."""
        dense = self._registry.get(Operator, problem.spec.operator).dense_cost(problem)
        return guess(problem, variants, contents, dense, self._target.gpu)
