"""What follows from timings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tuned import library_call

from sparsecompile.codegen.tuning.choose import DENSE, choose_function, choose_layout, last_row
from sparsecompile.codegen.tuning.measure import Timing

MASKED, SKIPS, BATCH = (
    library_call("masked decode", "masked"),
    library_call("skips decode", "skips"),
    library_call("masked batch", "masked"),
)


def timed(noise: float = 0.0, **seconds: float) -> dict[str, Timing]:
    return {name.replace("_", " "): Timing(s, noise) for name, s in seconds.items()}


def test_the_fastest_function_is_chosen() -> None:
    times = timed(masked_decode=2.0, masked_batch=1.0, dense=3.0)
    assert choose_function((MASKED, BATCH), times, dense=True) == "masked batch"


@pytest.mark.parametrize(
    ("packed", "noise", "choice"),
    [
        (0.9, 0.05, "masked decode"),
        (0.9, 0.11, DENSE),
        (0.75, 0.25, DENSE),
        (1.0, 0.0, DENSE),
        (1.1, 0.0, DENSE),
    ],
)
def test_dense_unless_faster_by_more_than_the_noise(
    packed: float, noise: float, choice: str
) -> None:
    times = timed(noise, masked_decode=packed, dense=1.0)
    assert choose_function((MASKED,), times, dense=True) == choice


def test_a_calm_function_is_chosen_where_a_faster_one_is_uncertain() -> None:
    times = {"dense": Timing(1.0, 0), MASKED.name: Timing(0.8, 0.3), BATCH.name: Timing(0.9, 0.05)}
    assert choose_function((MASKED, BATCH), times, dense=True) == BATCH.name
    assert choose_function((MASKED, BATCH), times, dense=False) == MASKED.name


def test_dense_is_chosen_only_where_it_may_be() -> None:
    times = timed(masked_decode=5.0, dense=1.0)
    assert choose_function((MASKED,), times, dense=False) == "masked decode"
    assert choose_function((MASKED,), timed(masked_decode=5.0), dense=True) == "masked decode"


def test_nothing_is_chosen_of_what_was_not_measured() -> None:
    assert choose_function((MASKED,), {}, dense=True) is None
    assert choose_function((MASKED,), timed(dense=1.0, skips_decode=1.0), dense=True) is None
    assert choose_layout((MASKED, SKIPS), {}, dense=True) is None
    assert choose_layout((MASKED, SKIPS), {1: timed(dense=1.0)}, dense=True) is None


def test_the_layout_loses_least_over_all_rows() -> None:
    few = timed(masked_decode=1.0, skips_decode=2.0)
    many = timed(masked_batch=3.0, skips_decode=2.0)
    assert choose_layout((MASKED, SKIPS, BATCH), {1: few, 128: many}, dense=False) == "masked"
    many = timed(masked_batch=5.0, skips_decode=2.0)
    assert choose_layout((MASKED, SKIPS, BATCH), {1: few, 128: many}, dense=False) == "skips"


def test_a_layout_is_not_punished_for_rows_that_dense_serves() -> None:
    few = timed(masked_decode=1.0, skips_decode=1.5, dense=3.0)
    many = timed(masked_batch=90.0, skips_decode=30.0, dense=3.0)
    both = {1: few, 128: many}
    assert choose_layout((MASKED, SKIPS, BATCH), both, dense=True) == "masked"
    assert choose_layout((MASKED, SKIPS, BATCH), both, dense=False) == "skips"


def test_a_layout_has_to_be_measured_at_every_m() -> None:
    timings = {1: timed(masked_decode=1.0, skips_decode=9.0), 128: timed(skips_decode=9.0)}
    assert choose_layout((MASKED, SKIPS, BATCH), timings, dense=True) == "skips"
    assert choose_layout((MASKED, BATCH), timings, dense=True) is None


def test_timings_of_others_do_not_count() -> None:
    timings = {1: timed(gone=0.001, masked_decode=1.0, skips_decode=2.0)}
    assert choose_layout((MASKED, SKIPS), timings, dense=True) == "masked"


@pytest.mark.parametrize(
    ("wins", "end", "looked_at"),
    [
        (lambda m: True, 15, [12, 14, 15]),
        (lambda m: False, 8, [12, 10, 9]),
        (lambda m: m <= 10, 10, [12, 10, 11]),
    ],
)
def test_the_end_of_a_range_is_found_by_bisection(
    wins: Callable[[int], bool], end: int, looked_at: list[int]
) -> None:
    seen: list[int] = []

    def watched(m: int) -> bool:
        seen.append(m)
        return wins(m)

    assert last_row(8, 16, watched) == end
    assert seen == looked_at


def test_bisection_takes_few_steps() -> None:
    seen: list[int] = []
    assert last_row(64, 256, lambda m: seen.append(m) or True) == 232
    assert len(seen) == 3
    assert last_row(7, 8, lambda m: seen.append(m) or True) == 7
    assert len(seen) == 3
