"""Fingerprints of what tensors hold, and how much of a change is seen how soon."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.codegen.cpp.freshness import load_freshness
from sparsecompile.weights.snapshot import (
    fingerprint,
    geometry,
    look_at,
    take_snapshot,
)


@st.composite
def tensors_of_any_kind(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 9), min_size=0, max_size=3))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.uint8]))
    seed = draw(st.integers(0, 9))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(50).to(dtype)
    if draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    if draw(st.booleans()) and tensor.dim():
        tensor = tensor[..., 1:]
    return tensor


@given(tensors_of_any_kind())
def test_the_native_fingerprint_is_the_one_that_python_defines(tensor: Tensor) -> None:
    load_freshness()
    assert take_snapshot(tensor).fingerprint == (geometry(tensor), fingerprint(tensor))


def test_large_tensors_have_that_fingerprint_too() -> None:
    """More than threads and chunks take at once."""
    load_freshness()
    tensor = torch.randn(701, 1009)
    assert take_snapshot(tensor).fingerprint == (geometry(tensor), fingerprint(tensor))


def changed_in_bits(tensor: Tensor) -> list[Tensor]:
    """What sums and exclusive-ors of the words would not see."""
    turned = tensor.clone()
    turned[[3, 5]] = turned[[5, 3]]
    negated = tensor.clone()
    negated[:2] = -negated[:2]
    one = tensor.clone()
    one.view(torch.int32)[7, 7] ^= 1
    return [turned, negated, one, -tensor, tensor.roll(1, 1), tensor.roll(1, 0), tensor.t()]


def test_other_values_have_another_fingerprint() -> None:
    tensor = torch.randn(64, 64)
    found = {
        fingerprint(tensor),
        *map(fingerprint, map(Tensor.contiguous, changed_in_bits(tensor))),
    }
    assert len(found) == 8


SIZES = [(96, 96), (64, 256), (512, 24), (1000, 33)]


def quarters(shape: tuple[int, int], draw: st.DataObject) -> tuple[slice, slice]:
    """Rows, columns, or a rectangle of both, a quarter of the whole at least."""
    n, k = shape
    rows = draw.draw(st.integers(-(-n // 4), n))
    columns = min(k, -(-n * k // (4 * rows)))
    # The lines of a row begin at multiples of 64 bytes from its first.
    columns = min(k, columns + 16)
    row = draw.draw(st.integers(0, n - rows))
    column = draw.draw(st.integers(0, k - columns))
    return slice(row, row + rows), slice(column, column + columns)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SIZES), st.integers(0, 70), st.data())
def test_a_quarter_that_changes_is_seen_at_the_next_call(
    shape: tuple[int, int], calls: int, data: st.DataObject
) -> None:
    """Whichever of the calls is the next one."""
    load_freshness()
    tensor = torch.zeros(shape)
    is_fresh = look_at((0,), [take_snapshot(tensor)])
    assert all(is_fresh((tensor,)) for _ in range(calls))
    tensor.data[quarters(shape, data)] += 1
    assert not is_fresh((tensor,))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 70), st.integers(0, 1000), st.booleans())
def test_a_hundredth_that_changes_is_seen_within_sixteen_calls(
    calls: int, first: int, scattered: bool
) -> None:
    """A run of rows, or values here and there."""
    load_freshness()
    tensor = torch.zeros(1200, 40)
    is_fresh = look_at((0,), [take_snapshot(tensor)])
    assert all(is_fresh((tensor,)) for _ in range(calls))
    if scattered:
        generator = torch.Generator().manual_seed(first)
        tensor.data.view(-1)[torch.randperm(48_000, generator=generator)[:480]] += 1
    else:
        tensor.data[first : first + 13] += 1
    assert not all(is_fresh((tensor,)) for _ in range(16))


def test_many_weights_are_sampled_more_thinly() -> None:
    load_freshness()
    tensors = tuple(torch.zeros(64, 64) for _ in range(65))
    is_fresh = look_at(range(65), [take_snapshot(tensor) for tensor in tensors])
    for tensor in tensors:
        assert is_fresh(tensors)
        tensor.data[16:32] += 1
        assert not is_fresh(tensors)
        tensor.data[16:32] -= 1


@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 100])
def test_small_tensors_are_seen_as_a_whole(size: int) -> None:
    load_freshness()
    tensor = torch.zeros(size)
    is_fresh = look_at((0,), [take_snapshot(tensor)])
    assert is_fresh((tensor,))
    tensor.data[size // 2 :] += 1
    assert size == 0 or not all(is_fresh((tensor,)) for _ in range(8))
