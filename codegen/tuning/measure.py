"""Measuring candidates against each other: interleaved, weights out of the cache, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparsecompile.codegen.tuning.record import Timing

FEWEST_ROUNDS = 7
MOST_ROUNDS = 41
SECONDS = 0.12
UNCLEAR_SECONDS = 0.5
HOPELESS = 2.0
LEAST_NOISE = 0.03
"""Of a time: by so much one moment differs from another, however calm each of them is."""


def _by_the_clock(run: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started) / 1e9


@dataclass(frozen=True)
class Contestant:
    """One candidate, ready to run.

    Attributes:
        run: one call.
        evict: takes what the call reads out of the caches, so that the next one is cold.
        seconds: of one call; by the clock of this process, or a device's own.
    """

    run: Callable[[], object]
    evict: Callable[[], None]
    seconds: Callable[[Callable[[], object]], float] = _by_the_clock


def measure(contestants: Mapping[str, Contestant], baseline: str) -> dict[str, Timing]:
    """Medians of interleaved calls.

    In each round every candidate is called once, in turns forwards and backwards, so that what
    else the machine does hits all alike. A candidate that takes `HOPELESS` times the best one's
    time in the first rounds is called no more. Where it is not clear whether the best one is faster
    than the baseline, as on a machine that is disturbed, there are more rounds.

    Args:
        contestants: by name.
        baseline: the one that leads are taken over.

    Returns:
        Timings by name. The noise is the standard error of the median lead, from its median
        absolute deviation, and never less than `LEAST_NOISE` of the time.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant.run()
    racing = list(contestants)
    started = time.perf_counter()
    rounds = 0
    while rounds < FEWEST_ROUNDS or _goes_on(
        rounds, time.perf_counter() - started, {n: samples[n] for n in racing}, baseline
    ):
        for name in racing if rounds % 2 else reversed(racing):
            samples[name].append(_time(contestants[name]))
        rounds += 1
        if rounds == FEWEST_ROUNDS // 2:
            best = min(min(times) for times in samples.values())
            racing = [n for n in racing if n == baseline or min(samples[n]) < HOPELESS * best]
    timings = {name: _timing(times, samples[baseline]) for name, times in samples.items()}
    return {name: _with_least_noise(timing) for name, timing in timings.items()}


def _with_least_noise(timing: Timing) -> Timing:
    return Timing(timing.seconds, max(timing.noise, LEAST_NOISE * timing.seconds))


def _goes_on(
    rounds: int, elapsed: float, samples: Mapping[str, Sequence[float]], baseline: str
) -> bool:
    """Whether another round is worth its time."""
    if elapsed < SECONDS and rounds < MOST_ROUNDS:
        return True
    rivals = [_timing(times, samples[baseline]) for n, times in samples.items() if n != baseline]
    if elapsed >= UNCLEAR_SECONDS or not rivals:
        return False
    best = min(rivals, key=lambda timing: timing.seconds)
    lead = statistics.median(samples[baseline]) - best.seconds
    return abs(lead) <= 2 * best.noise


def _time(contestant: Contestant) -> float:
    contestant.evict()
    return contestant.seconds(contestant.run)


def _timing(times: Sequence[float], baseline: Sequence[float]) -> Timing:
    leads = [theirs - own for own, theirs in zip(times, baseline, strict=False)]
    if times is baseline:
        leads = list(times)
    middle = statistics.median(leads)
    deviation = statistics.median(abs(lead - middle) for lead in leads)
    # The median of N normal samples has 1.25 times the error of their mean, and their standard
    # deviation is 1.48 times the median absolute one.
    return Timing(statistics.median(times), 1.25 * 1.48 * deviation / len(leads) ** 0.5)
