"""Measuring candidates against each other: interleaved, weights out of the cache, medians."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
FEWEST_CALM = 3
"""Samples that nothing disturbed, to leave the others out."""


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
        disturbed: whether other processes took processors away in most of the calls.
    """

    seconds: float
    noise: float
    disturbed: bool = False


class Sample(NamedTuple):
    """One call.

    Attributes:
        seconds: it took.
        calm: whether no processor was taken away while it ran.
    """

    seconds: float
    calm: bool = True


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
        of = again[best]
        timings[best] = replace(of, seconds=of.seconds * share, noise=of.noise * share)
    return {name: _with_least_noise(timing) for name, timing in timings.items()}


def _with_least_noise(timing: Timing) -> Timing:
    return replace(timing, noise=max(timing.noise, LEAST_NOISE * timing.seconds))


def _race(
    contestants: Mapping[str, Contestant],
    baseline: str,
    seconds: float,
    most_rounds: float = math.inf,
    best: str | None = None,
) -> dict[str, Timing]:
    """Timings after so many seconds or rounds, or as soon as it is clear whether `best` leads."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
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
            bar = HOPELESS * min(_best(own) for own in samples.values())
            racing = [
                name
                for name in racing
                if name == baseline or _best(samples[name]) < bar or not _any_calm(samples[name])
            ]
        # Who looks after every round sees a lead by chance more often.
        if best is not None and rounds == look:
            look *= 2
            if _is_clear(_timings(samples, baseline), best, baseline):
                break
    return _timings(samples, baseline)


def _is_clear(timings: Mapping[str, Timing], name: str, baseline: str) -> bool:
    """Whether one is faster or slower than the baseline by more than the noise."""
    return abs(timings[baseline].seconds - timings[name].seconds) > timings[name].noise


def _best(samples: Sequence[Sample]) -> float:
    return min(sample.seconds for sample in samples)


def _any_calm(samples: Sequence[Sample]) -> bool:
    return any(sample.calm for sample in samples)


def _time(contestant: Contestant) -> Sample:
    """One call that nothing disturbed, or the last of a few that something did.

    What else a machine does is not the candidate's: one whose threads wait for each other may take
    a thousand times its time where one of them has no processor, and would never be chosen again.
    """
    for _ in range(TRIES):
        contestant.evict()
        before = involuntary_switches()
        seconds = contestant.seconds(contestant.run)
        calm = involuntary_switches() == before
        if calm:
            break
    return Sample(seconds, calm)


def _timings(samples: Mapping[str, Sequence[Sample]], baseline: str) -> dict[str, Timing]:
    rivals = len(samples) - 1
    return {name: _timing(own, samples[baseline], rivals) for name, own in samples.items()}


def _timing(samples: Sequence[Sample], baseline: Sequence[Sample], rivals: int) -> Timing:
    """Of the rounds in which nothing disturbed either, or of all where these are too few."""
    rounds = list(zip(samples, baseline, strict=False))
    calm = [pair for pair in rounds if all(sample.calm for sample in pair)]
    enough = len(calm) >= min(FEWEST_CALM, len(rounds))
    used = calm if enough else rounds
    times, theirs = ([sample.seconds for sample in own] for own in zip(*used, strict=True))
    middle = statistics.median(times)
    is_baseline = samples is baseline
    leads = times if is_baseline else [b - a for a, b in zip(times, theirs, strict=True)]
    lead = middle if is_baseline else statistics.median(theirs) - middle
    least = _least_median(leads, CHANCE / max(1, rivals))
    return Timing(middle, max(0.0, lead - least), disturbed=not enough)


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
