"""Snapshots of live tensors, taken by the native library and by Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsecompile.codegen.cpp.freshness import NativeFreshness, load_freshness
from sparsecompile.errors import BuildError
from sparsecompile.weights import snapshot
from sparsecompile.weights.snapshot import (
    IsFresh,
    could_be_better,
    expect,
    fingerprint,
    geometry,
    look_at,
    take_snapshot,
)

Parameters = list[nn.Parameter]
Change = Callable[[Parameters], Parameters]
PLACES = (1, 4, 3, 2)


@pytest.fixture(params=["native", "python"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    load_freshness()
    assert snapshot._provider is not None
    if request.param == "python":
        monkeypatch.setattr(snapshot, "_provider", None)
    return str(request.param)


def parameters() -> Parameters:
    sizes = ((4, 4), (2,), (1,), (0, 5))
    return [nn.Parameter(torch.randn(*size), requires_grad=False) for size in sizes]


def call(tensors: Sequence[object]) -> tuple[object, ...]:
    """A call's arguments, of which nobody looks at the first and the last."""
    return (3, *tensors, torch.randn(2))


def look(tensors: Sequence[Tensor]) -> IsFresh:
    arguments = call(tensors)
    return look_at(PLACES, [take_snapshot(arguments[place]) for place in PLACES])  # type: ignore[arg-type]


def in_place(tensors: Parameters) -> Parameters:
    tensors[1].mul_(2)
    return tensors


def other_data(tensors: Parameters) -> Parameters:
    tensors[0].data = torch.randn(4, 4)
    return tensors


def other_data_in_the_same_place(tensors: Parameters) -> Parameters:
    """As where the allocator has given memory that was free."""
    address = tensors[0].data_ptr()
    tensors[0].data = torch.from_numpy(tensors[0].data.numpy())
    assert tensors[0].data_ptr() == address
    return tensors


def transposed(tensors: Parameters) -> Parameters:
    tensors[0].data = tensors[0].data.t()
    return tensors


def narrowed(tensors: Parameters) -> Parameters:
    tensors[0].data = tensors[0].data[:3]
    return tensors


def replaced(tensors: Parameters) -> Parameters:
    return [nn.Parameter(tensors[0].detach().clone(), requires_grad=False), *tensors[1:]]


def written_and_replaced(tensors: Parameters) -> Parameters:
    """Another tensor over the same memory, with a count of its own that says nothing."""
    alias = tensors[0].data
    tensors[0].mul_(2)
    return [nn.Parameter(alias, requires_grad=False), *tensors[1:]]


def swapped(tensors: Parameters) -> Parameters:
    torch.utils.swap_tensors(tensors[0], nn.Parameter(torch.randn(4, 4), requires_grad=False))
    return tensors


def turned(tensors: Parameters) -> Parameters:
    return tensors[::-1]


CHANGES = [
    *(in_place, other_data, other_data_in_the_same_place, transposed, narrowed, replaced),
    *(written_and_replaced, swapped, turned),
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(kind: str, change: Change) -> None:
    tensors = parameters()
    is_fresh = look(tensors)
    assert is_fresh(call(tensors))
    assert not is_fresh(call(change(tensors)))
    assert look(tensors)(call(tensors))


def test_an_object_of_another_type_is_not_looked_into(kind: str) -> None:
    class Other(nn.Parameter):
        pass

    tensors = parameters()
    is_fresh = look(tensors)
    assert not is_fresh(call([*tensors[:-1], 5]))
    if kind == "native":
        tensors[-1].__class__ = Other
        assert not is_fresh(call(tensors))


def test_tensors_are_not_kept_alive(kind: str) -> None:
    tensors = parameters()
    snapshots = [take_snapshot(tensor) for tensor in tensors]
    is_fresh = look(tensors)
    refs = [weakref.ref(tensor) for tensor in tensors]
    del tensors
    gc.collect()
    assert all(ref() is None for ref in refs)
    assert not any(snapshot.is_alive() for snapshot in snapshots)
    assert not is_fresh(call(parameters()))


def test_subclasses_are_looked_at_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Tensor):
        pass

    load_freshness()
    assert snapshot._provider is not None
    monkeypatch.setattr(snapshot._provider, "take", lambda *_: pytest.fail("a subclass"))
    named = torch.randn(3).as_subclass(Named)
    is_fresh = look_at((0,), [take_snapshot(named)])
    assert is_fresh((named,))
    named.add_(1)
    assert not is_fresh((named,))


def test_the_next_snapshot_waits_for_a_library_that_is_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_freshness()
    provider = snapshot._provider
    assert provider is not None
    monkeypatch.setattr(snapshot, "_provider", None)
    monkeypatch.setattr(snapshot, "_coming", None)
    tensor, calls = torch.randn(3), []
    assert could_be_better(take_snapshot(tensor)) is False

    def load() -> None:
        calls.append("load")
        snapshot.provide(provider)

    expect(load)
    take_snapshot(torch.empty(3, device="meta"))
    assert calls == []
    native = take_snapshot(tensor)
    assert type(native).__module__ == NativeFreshness.__module__
    expect(load)
    assert type(take_snapshot(tensor)) is type(native)
    assert calls == ["load"]


def test_python_looks_where_the_library_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_provider", None)
    calls = []

    def load() -> None:
        calls.append("load")
        raise BuildError("no compiler")

    expect(load)
    tensor = torch.randn(3)
    for _ in range(2):
        assert take_snapshot(tensor).fingerprint == (geometry(tensor), fingerprint(tensor))
    assert calls == ["load"]


def test_what_has_no_version_is_refused(kind: str) -> None:
    with torch.inference_mode():
        tensor = torch.randn(3)
    with pytest.raises(RuntimeError, match="Inference tensors do not track version counter"):
        take_snapshot(tensor)


def test_another_layout_of_tensors_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    load_freshness()
    assert isinstance(snapshot._provider, NativeFreshness)
    functions = snapshot._provider._functions
    assert snapshot._provider.knows_tensors()
    monkeypatch.setattr(functions, "sc_tensor_in", lambda _: 0, raising=False)
    assert not snapshot._provider.knows_tensors()


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
