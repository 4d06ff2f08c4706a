"""Interleaved timing, with a clock that only moves when a function is called."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsecompile.bench.timing import Timing, interleaved, involuntary_switches


class Clock:
    """Time that passes when a function takes it, and a count of disturbances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.switches = 0
        self.calls: list[str] = []

    def function(
        self, name: str, *seconds: float, disturbed: tuple[int, ...] = ()
    ) -> Callable[[], None]:
        """Takes the given seconds in turn, the last of them from then on."""
        count = 0

        def run() -> None:
            nonlocal count
            self.calls.append(name)
            self.now += seconds[min(count, len(seconds) - 1)]
            self.switches += count in disturbed
            count += 1

        return run

    def time(
        self, rounds: int, least: float = 0.0, **functions: Callable[[], None]
    ) -> dict[str, Timing]:
        return interleaved(
            functions,
            rounds=rounds,
            least=least,
            clock=lambda: self.now,
            switches=lambda: self.switches,
        )


def test_every_round_calls_every_function_once() -> None:
    clock = Clock()
    found = clock.time(3, a=clock.function("a", 1), b=clock.function("b", 2))
    assert "".join(clock.calls) == "ab" + "ab" * 3
    assert found == {"a": Timing(1, 0, 3), "b": Timing(2, 0, 3)}


def test_median_and_deviation_leave_the_first_call_out() -> None:
    clock = Clock()
    found = clock.time(5, a=clock.function("a", 100, 1, 2, 3, 4, 50))
    assert found["a"] == Timing(3, 1, 5)


def test_short_functions_are_called_several_times_a_sample() -> None:
    clock = Clock()
    found = clock.time(
        2, least=1.0, short=clock.function("s", 9, 0.25), long=clock.function("l", 4)
    )
    assert clock.calls == ["s", "s", "l", "l"] + 2 * ["s", "s", "s", "s", "l"]
    assert found == {"short": Timing(0.25, 0, 2), "long": Timing(4, 0, 2)}


def test_disturbed_samples_are_dropped() -> None:
    clock = Clock()
    function = clock.function("a", 0, 1, 8, 1, 1, disturbed=(0, 2))
    assert clock.time(4, a=function)["a"] == Timing(1, 0, 3, 1)


def test_disturbed_samples_count_when_too_few_others_remain() -> None:
    clock = Clock()
    function = clock.function("a", 0, 1, 8, 8, 1, disturbed=(2, 3))
    assert clock.time(4, a=function)["a"] == Timing(4.5, 3.5, 4, 0)


def test_a_clock_that_stands_still() -> None:
    clock = Clock()
    assert clock.time(1, least=1e-8, a=clock.function("a", 0))["a"].seconds == 0


def test_no_rounds() -> None:
    with pytest.raises(ValueError, match="0 rounds give no median"):
        Clock().time(0)


def test_parts_and_differences() -> None:
    assert Timing(8, 2, 5, 1) / 4 == Timing(2, 0.5, 5, 1)
    assert Timing(8, 2, 5, 1) - Timing(3, 1, 4, 2) == Timing(5, 3, 4, 3)


def test_the_systems_own_count() -> None:
    assert involuntary_switches() >= 0
    assert interleaved({"a": int}, rounds=1)["a"].samples == 1
