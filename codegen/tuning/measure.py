"""Measuring candidates against each other: interleaved, weights out of the cache, medians."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FEWEST_ROUNDS = 7
MOST_ROUNDS = 41
SECONDS = 0.12
UNCLEAR_SECONDS = 0.3
CHANCE = 0.01
"""That the best of a race seems to lead by more than the noise where all are equal."""
HOPELESS = 2.0
LEAST_NOISE = 0.03
"""Of a time: by so much one moment differs from another, however calm each of them is."""


TRIES = 3
"""For a sample that nothing disturbs."""


def involuntary_switches() -> int:
    """How often the system took a processor away from this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True)
class Timing:
    """How long one candidate took.

    Attributes:
        seconds: median of a call.
        noise: seconds by which its lead over the dense linear is uncertain.
    """

    seconds: float
    noise: float


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
    than the baseline, as on a machine that is disturbed, these two are measured again, alone: the
    best of several owes its place to luck, too, which it does not have twice.

    Args:
        contestants: by name.
        baseline: the one that leads are taken over.

    Returns:
        Timings by name. The noise is what the lead has to be more than for the median lead to be
        one, but for `CHANCE`, and never less than `LEAST_NOISE` of the time.
    """
    for contestant in contestants.values():
        contestant.run()
    timings = _race(contestants, baseline, SECONDS, MOST_ROUNDS)
    best = min(timings.keys() - {baseline}, key=lambda name: timings[name].seconds, default=None)
    if best is not None and not _is_clear(timings, best, baseline):
        pair = {name: contestants[name] for name in (baseline, best)}
        again = _race(pair, baseline, UNCLEAR_SECONDS, best=best)
        # As a share of the baseline's time: the others were measured at another moment.
        share = timings[baseline].seconds / again[baseline].seconds
        timings[best] = Timing(again[best].seconds * share, again[best].noise * share)
    return {name: _with_least_noise(timing) for name, timing in timings.items()}


def _with_least_noise(timing: Timing) -> Timing:
    return Timing(timing.seconds, max(timing.noise, LEAST_NOISE * timing.seconds))


def _race(
    contestants: Mapping[str, Contestant],
    baseline: str,
    seconds: float,
    most_rounds: float = math.inf,
    best: str | None = None,
) -> dict[str, Timing]:
    """Timings after so many seconds or rounds, or as soon as it is clear whether `best` leads."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    racing = list(contestants)
    started = time.perf_counter()
    rounds, look = 0, FEWEST_ROUNDS
    while rounds < FEWEST_ROUNDS or (
        time.perf_counter() - started < seconds and rounds < most_rounds
    ):
        for name in racing if rounds % 2 else reversed(racing):
            samples[name].append(_time(contestants[name]))
        rounds += 1
        if rounds == FEWEST_ROUNDS // 2:
            fastest = min(min(times) for times in samples.values())
            racing = [n for n in racing if n == baseline or min(samples[n]) < HOPELESS * fastest]
        # Who looks after every round sees a lead by chance more often.
        if best is not None and rounds == look:
            look *= 2
            if _is_clear(_timings(samples, baseline), best, baseline):
                break
    return _timings(samples, baseline)


def _is_clear(timings: Mapping[str, Timing], name: str, baseline: str) -> bool:
    """Whether one is faster or slower than the baseline by more than the noise."""
    return abs(timings[baseline].seconds - timings[name].seconds) > timings[name].noise


def _time(contestant: Contestant) -> float:
    """Seconds of one call that nothing disturbed, or of the last of a few that something did.

    What else a machine does is not the candidate's: one whose threads wait for each other may take
    a thousand times its time where one of them has no processor, and would never be chosen again.
    """
    for _ in range(TRIES):
        contestant.evict()
        before = involuntary_switches()
        seconds = contestant.seconds(contestant.run)
        if involuntary_switches() == before:
            break
    return seconds


def _timings(samples: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Timing]:
    rivals = len(samples) - 1
    return {name: _timing(times, samples[baseline], rivals) for name, times in samples.items()}


def _timing(times: Sequence[float], baseline: Sequence[float], rivals: int) -> Timing:
    leads = [theirs - own for own, theirs in zip(times, baseline, strict=False)]
    if times is baseline:
        leads = list(times)
    middle = statistics.median(times)
    lead = middle if times is baseline else statistics.median(baseline) - middle
    least = _least_median(leads, CHANCE / max(1, rivals))
    return Timing(middle, max(0.0, lead - least))


def _least_median(values: Sequence[float], chance: float) -> float:
    """What the median of many more values is above, but for such a chance.

    Half of them are above it, however they are distributed: so it is one of the values, by rank.
    """
    count = len(values)
    errors = statistics.NormalDist().inv_cdf(1 - chance)
    rank = (count - errors * count**0.5) / 2
    least = sorted(values)[max(0, int(rank))]
    if rank >= 0:
        return least
    # So few are all above it too often.
    middle = statistics.median(values)
    return middle - (middle - least) * errors**2 / count
