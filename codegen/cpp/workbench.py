"""CppWorkbench: this CPU as a Tuner sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.codegen.cpp.machine import Machine, known_machine, measure_machine
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.codegen.tuning.measure import Contestant
from sparsecompile.codegen.tuning.variant import Variant, functions_of
from sparsecompile.codegen.tuning.workbench import Guess, Limits, Workbench
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.target import Target

COLD_ROWS = 8
"""Up to this m a call reads far more weight than it computes, and finds it in memory."""
TYPICAL = Machine("", 1, 1e10, 1e10, 0, 0, 1e11, 2e11, 4e11, "", "", "")
"""Stands for a machine that was not measured: only its ratios matter."""


class CppWorkbench(Workbench):
    """This CPU with torch's number of threads.

    Args:
        target: the instruction set that kernels may use.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._threads = torch.get_num_threads()

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def facts(self) -> Mapping[str, object]:
        """Instruction set and threads, and the compiler with its flags.

        Raises:
            BuildError: there is no compiler.
            CacheError: the cache folder cannot be used.
        """
        compiler = self._compiler
        version, *words = compiler.identity
        flags = " ".join((*words, *compiler.flags(self._target)))
        return {
            "target": str(self._target),
            "threads": self._threads,
            "compiler": version,
            "flags": flags,
        }

    @cached_property
    def _compiler(self) -> Compiler:
        return find_compiler()

    @property
    def builds(self) -> bool:
        """Whether there is a compiler: an image may have none."""
        return not self._compiler.missing

    def limits(self, *, measure: bool) -> Limits:
        """Of this machine, as far as they are known or may be measured."""
        if measure:
            return measure_machine(self._threads).limits
        return (known_machine(self._threads) or TYPICAL).limits

    def rates(self) -> Mapping[str, float]:
        """Of this machine, if they are known."""
        machine = known_machine(self._threads)
        return machine.limits.rates if machine is not None else {}

    def is_cold(self, rows: int) -> bool:
        """Where the weight is what takes time."""
        return rows <= COLD_ROWS

    def contestant(self, run: Callable[[], object], weight: Tensor, rows: int) -> Contestant:
        """Timed by the clock, with few rows after the weight was taken out of the caches."""
        evict = load_native().evict
        return Contestant(run, (lambda: evict(weight)) if self.is_cold(rows) else _nothing)

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """Of Inductor, where it compiles a library call."""
        from torch._dynamo.exc import TorchDynamoException

        return (TorchDynamoException,)

    def guess(self, problem: Problem, variants: Sequence[Variant], contents: Sample) -> Guess:
        """The most promising variant for every m."""
        return Guess(tuple(f.range(f.largest_m) for f in functions_of(variants[:1])))


def _nothing() -> None:
    """Leave the caches as they are."""
