"""Prune: candidates not worth a measurement are dropped before one, and the reasons kept."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.specialization import Specialization, specialize
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.codegen.triton.version import triton_version
from sparsecompile.errors import BuildError
from sparsecompile.kernels.spec import S, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Pruned(Generic[T]):
    """What is left of candidates.

    Attributes:
        kept: those worth a measurement, in their order.
        dropped: the others, each with the reason.
    """

    kept: tuple[T, ...]
    dropped: Mapping[T, str]


def prune(candidates: Mapping[T, Sequence[Specialization]], target: str) -> Pruned[T]:
    """Compile all kernels of candidates, and keep those that are as they were meant.

    Dropped is what spills, needs more shared memory than there is, falls off the matrix units, or
    cannot be compiled. Where that is all of them there is nothing left to choose from.

    Args:
        candidates: their kernels, by whatever stands for a candidate, such as a schedule.
        target: such as `sm_90`.

    Raises:
        OptionError: nothing is known of the target.
        BuildError: Triton, or a tool that reads its machine code, is not installed.
        CacheError: the cache folder cannot be used.
    """
    dropped: dict[T, str] = {}
    for candidate, kernels in candidates.items():
        for kernel in kernels:
            try:
                faults = analyse(kernel, target).faults
            except BuildError as error:
                if not error.source:
                    raise
                faults = (" ".join(f"does not compile: {error.stderr}".split()),)
            if faults:
                dropped[candidate] = f"{kernel.name} on {target}: {'; '.join(faults)}"
                break
    kept = tuple(candidate for candidate in candidates if candidate not in dropped)
    return Pruned(kept, dropped)


def prune_schedules(
    spec: S,
    template: TritonTemplate[S],
    schedules: Iterable[Schedule],
    target: Target,
    registry: Registry,
) -> Pruned[tuple[Schedule, str]]:
    """The functions of a template's schedules that are worth a measurement; see `prune`.

    Args:
        spec: what is computed.
        template: how.
        schedules: such as `template.search(spec, target)`.
        target: a GPU.
        registry: where the fragments are.

    Returns:
        Pairs of a schedule and the symbol of a launch.

    Raises:
        OptionError: nothing can be compiled for the target.
        BuildError: Triton is not installed.
        CacheError: the cache folder cannot be used.
    """
    triton_version()
    found = {
        (schedule, symbol): (kernel,)
        for schedule in schedules
        for symbol, kernel in specialize(spec, template, schedule, target, registry).items()
    }
    return prune(found, target.arch)
