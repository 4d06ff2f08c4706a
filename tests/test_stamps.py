"""Stamps of live tensors, looked at by the native library and by Python."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsecompile import stamps
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.stamps import Stamps

Change = Callable[[list[nn.Parameter]], list[nn.Parameter]]


@pytest.fixture(params=["native", "python"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    load_native()
    if request.param == "python":
        monkeypatch.setattr(stamps, "_is_native", lambda: False)
    return str(request.param)


def parameters() -> list[nn.Parameter]:
    sizes = ((3, 4), (2,), (1,), (0, 5))
    return [nn.Parameter(torch.randn(*size), requires_grad=False) for size in sizes]


def in_place(tensors: list[nn.Parameter]) -> list[nn.Parameter]:
    tensors[1].mul_(2)
    return tensors


def other_data(tensors: list[nn.Parameter]) -> list[nn.Parameter]:
    tensors[0].data = torch.randn(3, 4)
    return tensors


def replaced(tensors: list[nn.Parameter]) -> list[nn.Parameter]:
    return [*tensors[:-1], nn.Parameter(tensors[-1].detach(), requires_grad=False)]


def turned(tensors: list[nn.Parameter]) -> list[nn.Parameter]:
    return tensors[::-1]


@pytest.mark.parametrize("change", [in_place, other_data, replaced, turned])
def test_every_change_is_seen(kind: str, change: Change) -> None:
    tensors = parameters()
    made = Stamps(tensors)
    assert (made._native is not None) == (kind == "native")
    assert made.match(tensors)
    assert made.match(tuple(tensors))
    assert not made.match(change(tensors))


def test_tensors_are_not_kept_alive(kind: str) -> None:
    tensors = parameters()
    made = Stamps(tensors)
    refs = [weakref.ref(tensor) for tensor in tensors]
    del tensors
    gc.collect()
    assert all(ref() is None for ref in refs)
    assert not made.match(parameters())


def test_as_many_tensors_are_wanted(kind: str) -> None:
    tensors = parameters()
    made = Stamps(tensors)
    assert not made.match(tensors[:-1])


def test_subclasses_are_looked_at_by_python() -> None:
    load_native()

    class Named(Tensor):
        pass

    named = torch.randn(3).as_subclass(Named)
    made = Stamps([named])
    assert made._native is None
    assert made.match([named])
    named.add_(1)
    assert not made.match([named])


def test_what_is_no_stamp_is_refused() -> None:
    load_native()
    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.zeros(24)):
        with pytest.raises(RuntimeError, match=r"these are no stamps; pass what stamp\(\) made"):
            torch.ops.sparsecompile.is_fresh([torch.zeros(1)], wrong)
