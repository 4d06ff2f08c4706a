"""Stamps of live tensors, looked at by the native library and by Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from sparsecompile import stamps
from sparsecompile.codegen.cpp import native
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.stamps import take_stamps

Parameters = list[nn.Parameter]
Change = Callable[[Parameters], Parameters]
PLACES = (1, 4, 3, 2)


@pytest.fixture(params=["native", "python"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    load_native()
    assert stamps._native is not None
    if request.param == "python":
        monkeypatch.setattr(stamps, "_native", None)
    return str(request.param)


def parameters() -> Parameters:
    sizes = ((4, 4), (2,), (1,), (0, 5))
    return [nn.Parameter(torch.randn(*size), requires_grad=False) for size in sizes]


def call(tensors: Sequence[object]) -> tuple[object, ...]:
    """A call's arguments, of which nobody looks at the first and the last."""
    return (3, *tensors, torch.randn(2))


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
    return [*tensors[:-1], nn.Parameter(tensors[-1].detach(), requires_grad=False)]


def turned(tensors: Parameters) -> Parameters:
    return tensors[::-1]


@pytest.mark.parametrize(
    "change",
    [in_place, other_data, other_data_in_the_same_place, transposed, narrowed, replaced, turned],
)
def test_every_change_is_seen(kind: str, change: Change) -> None:
    tensors = parameters()
    is_fresh = take_stamps(call(tensors), PLACES)
    assert is_fresh(call(tensors))
    assert not is_fresh(call(change(tensors)))
    assert take_stamps(call(tensors), PLACES)(call(tensors))


def test_an_object_of_another_type_is_not_looked_into() -> None:
    class Other(nn.Parameter):
        pass

    load_native()
    tensors = parameters()
    is_fresh = take_stamps(call(tensors), PLACES)
    assert not is_fresh(call([*tensors[:-1], 5]))
    tensors[-1].__class__ = Other
    assert not is_fresh(call(tensors))


def test_nothing_is_left_of_stamps_that_are_gone() -> None:
    load_native()
    tensors = parameters()
    is_fresh = take_stamps(call(tensors), PLACES)
    other = nn.Parameter(torch.randn(3, 4), requires_grad=False)
    # Torch refuses it while somebody refers to the tensor behind the object.
    with pytest.raises(RuntimeError, match="Expected no weakrefs"):
        torch.utils.swap_tensors(tensors[0], other)
    del is_fresh
    torch.utils.swap_tensors(tensors[0], other)


def test_another_layout_of_tensors_leaves_it_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native._Freshness, "knows_tensors", lambda _: False)
    monkeypatch.setattr(stamps, "_native", None)
    native._load.__wrapped__()
    assert stamps._native is None


def test_tensors_are_not_kept_alive(kind: str) -> None:
    tensors = parameters()
    is_fresh = take_stamps(call(tensors), PLACES)
    refs = [weakref.ref(tensor) for tensor in tensors]
    del tensors
    gc.collect()
    assert all(ref() is None for ref in refs)
    assert not is_fresh(call(parameters()))


def test_subclasses_are_looked_at_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Tensor):
        pass

    monkeypatch.setattr(stamps, "_native", lambda *_: pytest.fail("a subclass"))
    named = torch.randn(3).as_subclass(Named)
    is_fresh = take_stamps((named,), (0,))
    assert is_fresh((named,))
    named.add_(1)
    assert not is_fresh((named,))


def test_what_has_no_version_is_refused_by_python(kind: str) -> None:
    with torch.inference_mode():
        tensor = torch.randn(3)
    with pytest.raises(RuntimeError, match="Inference tensors do not track version counter"):
        take_stamps((tensor,), (0,))
