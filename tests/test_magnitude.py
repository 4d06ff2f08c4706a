"""Magnitude pruning agrees with sorting, ties and NaN included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.structures.magnitude import largest_of_groups, magnitudes, smallest

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Few different values, so that there are ties; signs, zeros of both signs and what is not finite.
VALUES = [0.0, -0.0, 1e-7, -0.5, 0.5, 2.0, -2.0, float("inf"), float("-inf"), float("nan")]
weights = st.lists(st.sampled_from(VALUES), min_size=24, max_size=96)


def _sorted(weight: Tensor, *, descending: bool) -> Tensor:
    """Places by magnitude; of equal ones the first comes first."""
    return weight.abs().float().argsort(dim=-1, descending=descending, stable=True)


@given(weights, st.sampled_from(DTYPES), st.data())
def test_the_smallest_are_those_that_a_stable_sort_puts_first(
    values: list[float], dtype: torch.dtype, data: st.DataObject
) -> None:
    weight = torch.tensor(values, dtype=dtype)
    count = data.draw(st.integers(0, len(values)))
    want = torch.zeros(len(values), dtype=torch.bool)
    want[_sorted(weight, descending=False)[:count]] = True
    assert torch.equal(smallest(magnitudes(weight), count), want)


@given(weights, st.sampled_from(DTYPES), st.sampled_from([2, 3, 4, 8, 12]), st.data())
def test_the_largest_of_a_group_are_those_that_a_stable_sort_puts_first(
    values: list[float], dtype: torch.dtype, m: int, data: st.DataObject
) -> None:
    weight = torch.tensor(values[: len(values) // m * m], dtype=dtype).view(-1, m)
    n = data.draw(st.integers(0, m))
    kept = _sorted(weight, descending=True)[:, :n]
    want = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, kept, True)
    assert torch.equal(largest_of_groups(magnitudes(weight), n), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_magnitudes_have_the_width_of_the_weight(dtype: torch.dtype) -> None:
    assert magnitudes(torch.zeros(3, dtype=dtype)).dtype.itemsize == dtype.itemsize
