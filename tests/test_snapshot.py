"""Snapshots of live tensors, taken by the native library and by Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
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
