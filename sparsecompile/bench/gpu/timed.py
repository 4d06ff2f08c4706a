"""Calls on a GPU, timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sparsecompile.bench.timing import Timing, summary
from sparsecompile.codegen.triton.timer import GpuTimer


def timed(
    runs: Mapping[str, Callable[[], object]], timer: GpuTimer, rounds: int
) -> dict[str, Timing]:
    """Medians of interleaved calls, L2 emptied before each.

    Args:
        runs: what `GpuTimer.ready` gave, by name.
        timer: of their GPU.
        rounds: samples of each.
    """
    samples: dict[str, list[tuple[float, bool]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            timer.evict()
            samples[name].append((timer.seconds(run), False))
    return {name: summary(found) for name, found in samples.items()}
