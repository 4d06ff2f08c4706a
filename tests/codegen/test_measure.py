"""Measuring candidates against each other, with a clock that tests wind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import pytest
from tuned import library_call

from sparsecompile.codegen.tuning import measure as measuring
from sparsecompile.codegen.tuning.choose import choose_function
from sparsecompile.codegen.tuning.measure import (
    FEWEST_ROUNDS,
    LEAST_NOISE,
    MOST_ROUNDS,
    Contestant,
    measure,
)


class Clock:
    """Time that passes only when something runs; stands in for the module `time`."""

    def __init__(self) -> None:
        self.nanoseconds = 0
        self.calls: list[str] = []

    def perf_counter_ns(self) -> int:
        return self.nanoseconds

    def perf_counter(self) -> float:
        return self.nanoseconds / 1e9

    def contestant(self, name: str, times: Callable[[], float]) -> Contestant:
        def run() -> None:
            self.calls.append(name)
            self.nanoseconds += round(times() * 1e9)

        def evict() -> None:
            self.calls.append(f"evict {name}")
            self.nanoseconds += 10**9

        return Contestant(run, evict)

    def race(self, times: Mapping[str, Callable[[], float]]) -> Mapping[str, Contestant]:
        return {name: self.contestant(name, own) for name, own in times.items()}

    @property
    def runs(self) -> list[str]:
        """What was called, after the first call of each."""
        names = [name for name in self.calls if not name.startswith("evict")]
        return names[len(set(names)) :]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)
    monkeypatch.setattr(measuring, "involuntary_switches", lambda: 0)
    return clock


def taken_away(clock: Clock, monkeypatch: pytest.MonkeyPatch, above: float) -> Callable[..., Any]:
    """Times of which those above one are such that a processor was taken away."""
    counted = [0]
    monkeypatch.setattr(measuring, "involuntary_switches", lambda: counted[0])

    def counting(times: Callable[[], float]) -> Callable[[], float]:
        def next_one() -> float:
            seconds = times()
            counted[0] += seconds > above
            return seconds

        return next_one

    return counting


def cycle(*times: float) -> Callable[[], float]:
    """These times again and again, the first also for the call before all rounds."""

    def all_times() -> Iterator[float]:
        yield times[0]
        while True:
            yield from times

    values = all_times()
    return lambda: next(values)


def test_a_disturbed_sample_is_taken_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = cycle(1.0, 49.0, 1.0, 1.0)
    counted = {"switches": 0}

    def times() -> float:
        seconds = disturbed()
        counted["switches"] += seconds > 40
        return seconds

    monkeypatch.setattr(measuring, "involuntary_switches", lambda: counted["switches"])
    timings = measure(clock.race({"dense": cycle(2.0), "a": times}), "dense")
    assert timings["a"].seconds == 1.0
    assert timings["a"].noise < 0.1


def test_what_is_always_disturbed_is_measured_all_the_same(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(10**6))
    monkeypatch.setattr(measuring, "involuntary_switches", lambda: next(counts))
    assert measure(clock.race({"dense": cycle(2.0), "a": cycle(1.0)}), "dense")["a"].seconds == 1.0


def test_medians(clock: Clock) -> None:
    timings = measure(
        clock.race({"dense": cycle(3.0), "a": cycle(1.0, 2.0, 9.0, 2.0, 1.5, 2.5, 2.0)}), "dense"
    )
    assert timings["dense"].seconds == 3.0
    assert timings["dense"].noise == LEAST_NOISE * 3.0
    assert timings["a"].seconds == 2.0
    # Of so few the least has to be a lead; it is -6, where the medians differ by 1.
    assert timings["a"].noise == pytest.approx(7.0)


def test_a_calm_moment_is_not_every_moment(clock: Clock) -> None:
    for seconds, wins in ((0.98, False), (0.96, True)):
        race = clock.race({"dense": cycle(1.0), "a": cycle(seconds)})
        chosen = choose_function((library_call("a"),), measure(race, "dense"), dense=True)
        assert chosen == ("a" if wins else "dense")


def test_caches_are_cold_and_evicting_takes_no_time(clock: Clock) -> None:
    timings = measure(clock.race({"dense": cycle(0.5), "a": cycle(0.25)}), "dense")
    assert (timings["dense"].seconds, timings["a"].seconds) == (0.5, 0.25)
    timed = clock.calls[2:]
    assert timed[::2] == [f"evict {name}" for name in timed[1::2]]


def test_rounds_go_backwards_and_forwards(clock: Clock) -> None:
    measure(clock.race(dict.fromkeys("abc", lambda: 1.0)), "a")
    assert "".join(clock.runs[:12]) == "cbaabccbaabc"


def test_few_rounds_of_what_takes_long_and_no_more_than_needed_of_what_does_not(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(clock.race({"a": cycle(1.0)}), "a")
    assert len(clock.runs) == FEWEST_ROUNDS
    clock.calls.clear()
    monkeypatch.setattr(measuring, "SECONDS", 1e9)
    measure(clock.race({"a": cycle(0.0)}), "a")
    assert len(clock.runs) == MOST_ROUNDS


def test_more_rounds_where_it_is_not_clear_who_is_faster(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SECONDS", 60.0)
    monkeypatch.setattr(measuring, "UNCLEAR_SECONDS", 1000.0)
    disturbed = cycle(*[9.0, 1.0, 5.0, 1.0] * 4, *[1.0] * 200)
    timings = measure(clock.race({"dense": cycle(1.5), "a": disturbed}), "dense")
    # Sixty seconds are 14 rounds.
    assert 16 < clock.runs.count("a") < 40
    assert timings["dense"].seconds - timings["a"].seconds > timings["a"].noise
    clock.calls.clear()
    measure(clock.race({"dense": cycle(1.0), "a": cycle(1.0, 1.1, 0.9)}), "dense")
    # A draw takes all the time there is, of which evicting takes a second a call.
    assert clock.runs.count("a") == pytest.approx((60 + 1000) / 4, rel=0.02)


def test_the_best_of_several_is_measured_again_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the race it leads by luck, in all rounds but one; afterwards it is slower.
    lucky = cycle(*[0.9] * 6, 1.2, *[1.1] * 100)
    race = {"dense": cycle(1.0), "a": lucky, "b": cycle(1.05), "c": cycle(1.06)}
    timings = measure(clock.race(race), "dense")
    rounds = {name: clock.runs.count(name) for name in race}
    assert rounds == {name: FEWEST_ROUNDS * (1 + (name in ("dense", "a"))) for name in race}
    assert timings["a"].seconds == pytest.approx(1.1)


def test_another_moment_changes_no_lead(clock: Clock) -> None:
    # Everything takes twice as long when the two are measured again.
    dense = cycle(*[1.0] * 7, *[2.0] * 100)
    a = cycle(*[0.9] * 6, 1.2, *[1.8] * 100)
    timings = measure(clock.race({"dense": dense, "a": a, "b": cycle(1.05)}), "dense")
    assert (timings["dense"].seconds, timings["a"].seconds) == (1.0, pytest.approx(0.9))


@pytest.mark.parametrize(
    ("relative", "rivals", "milliseconds", "noise", "expected"),
    [
        (1.04, 1, 1.0, 0.15, range(15)),
        (1.04, 8, 1.0, 0.15, range(15)),
        (1.04, 8, 1.0, 0.3, range(15)),
        (1.04, 8, 10.0, 0.3, range(15)),
        (0.8, 8, 10.0, 0.05, range(286, 301)),
        (0.8, 8, 1.0, 0.3, range(270, 301)),
    ],
)
def test_what_is_slower_is_hardly_ever_chosen_on_a_disturbed_machine(
    clock: Clock,
    relative: float,
    rivals: int,
    milliseconds: float,
    noise: float,
    expected: range,
) -> None:
    random = Random(1)

    def contestant(share: float) -> Contestant:
        def seconds(run: Callable[[], object]) -> float:
            taken = milliseconds * 1e-3 * share * random.lognormvariate(0, noise)
            clock.nanoseconds += round(taken * 1e9)
            return taken

        return Contestant(lambda: None, lambda: None, seconds)

    names = [f"f{i}" for i in range(rivals)]
    functions = [library_call(name) for name in names]
    chosen = 0
    for _ in range(300):
        race = {"dense": contestant(1.0), **{name: contestant(relative) for name in names}}
        chosen += choose_function(functions, measure(race, "dense"), dense=True) != "dense"
    assert chosen in expected


def test_disturbed_rounds_do_not_count_where_others_are_left(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = taken_away(clock, monkeypatch, above=8.0)
    # Four of seven rounds are disturbed for each of the three tries.
    a = counting(cycle(*[9.0] * 4, 0.5, *[9.0] * 3, 0.6, *[9.0] * 6, 0.7))
    timings = measure(clock.race({"dense": cycle(1.0), "a": a}), "dense")
    assert timings["a"].seconds == pytest.approx(0.6, rel=0.2)
    assert not timings["a"].disturbed
    assert not timings["dense"].disturbed


def test_what_is_disturbed_throughout_is_called_so(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = taken_away(clock, monkeypatch, above=1.5)
    race = {"dense": cycle(1.0), "a": counting(cycle(3.0)), "b": cycle(0.7)}
    timings = measure(clock.race(race), "dense")
    assert {name for name, timing in timings.items() if timing.disturbed} == {"a"}
    # It is not hopeless, as far as one can tell.
    assert clock.runs.count("a") == 3 * FEWEST_ROUNDS


def test_what_is_hopeless_is_called_no_more(clock: Clock) -> None:
    race = {"dense": cycle(9.0), "best": cycle(1.0), "near": cycle(1.9), "slow": cycle(2.1)}
    timings = measure(clock.race(race), "dense")
    rounds = {name: clock.runs.count(name) for name in race}
    first = FEWEST_ROUNDS // 2
    assert rounds == {
        "dense": FEWEST_ROUNDS,
        "best": FEWEST_ROUNDS,
        "near": FEWEST_ROUNDS,
        "slow": first,
    }
    assert timings["slow"].seconds == 2.1
    assert timings.keys() == race.keys()


def test_one_lucky_call_saves_a_candidate_from_being_hopeless(clock: Clock) -> None:
    measure(clock.race({"dense": cycle(1.0), "a": cycle(5.0, 1.5, 5.0)}), "dense")
    assert clock.runs.count("a") == FEWEST_ROUNDS
