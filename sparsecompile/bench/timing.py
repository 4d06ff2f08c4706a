"""Interleaved timing: every round times every function, so that a slow minute hits them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from sparsecompile.codegen.tuning.measure import involuntary_switches

ENOUGH = 3
"""Undisturbed samples that a median needs; with fewer the disturbed ones count too."""


@dataclass(frozen=True)
class Timing:
    """How long one call takes.

    Attributes:
        seconds: median over the samples.
        mad: their median absolute deviation from it, in seconds.
        samples: how many counted.
        dropped: how many did not, because the system took the processor away meanwhile.
    """

    seconds: float
    mad: float
    samples: int
    dropped: int = 0

    def __truediv__(self, calls: float) -> Timing:
        """One of several equal parts of what was timed."""
        return Timing(self.seconds / calls, self.mad / calls, self.samples, self.dropped)

    def __sub__(self, other: Timing) -> Timing:
        """What this takes more than the other; the deviations add up."""
        return Timing(
            self.seconds - other.seconds,
            self.mad + other.mad,
            min(self.samples, other.samples),
            self.dropped + other.dropped,
        )


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    least: float = 0.0,
    ready: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    switches: Callable[[], int] = involuntary_switches,
) -> dict[str, Timing]:
    """Time functions side by side, after a call of each that does not count.

    Args:
        functions: what to time, by name.
        rounds: samples of each.
        least: seconds that a sample should last; short functions are called several times for
            one sample. 0 means one call a sample, which leaves the caches to the others between
            two samples.
        ready: called before every sample, which does not count.
        clock: the time in seconds.
        switches: a count that rises when something disturbs a sample.

    Returns:
        The time of one call by name.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds give no median")
    calls = {name: _calls(function, least, clock) for name, function in functions.items()}
    samples: dict[str, list[tuple[float, bool]]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            repeats = range(calls[name])
            if ready is not None:
                ready()
            before = switches()
            start = clock()
            for _ in repeats:
                function()
            seconds = clock() - start
            samples[name].append((seconds / calls[name], switches() != before))
    return {name: summary(found) for name, found in samples.items()}


def _calls(function: Callable[[], object], least: float, clock: Callable[[], float]) -> int:
    """Calls that last about as long as asked, judged by the faster of two; at least one."""
    took = []
    for _ in range(2 if least > 0 else 1):
        start = clock()
        function()
        took.append(clock() - start)
    return max(1, ceil(least / max(min(took), 1e-9)))


def summary(samples: Sequence[tuple[float, bool]]) -> Timing:
    """The median of the samples that nothing disturbed, or of all where these are too few.

    Args:
        samples: seconds of each, and whether something disturbed it.
    """
    quiet = [seconds for seconds, disturbed in samples if not disturbed]
    kept = quiet if len(quiet) >= ENOUGH else [seconds for seconds, _ in samples]
    middle = median(kept)
    mad = median(abs(seconds - middle) for seconds in kept)
    return Timing(middle, mad, len(kept), len(samples) - len(kept))
