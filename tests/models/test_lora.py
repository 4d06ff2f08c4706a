"""Low-rank adapters beside a packed base: factors stay live, and the sum is the base's epilogue."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import Packing, sparse_
from torch import Tensor, nn

from sparsecompile.lowering import slots
from sparsecompile.testing import assert_no_worse


class Lora(nn.Module):
    """A linear with adapters, added as PEFT adds them."""

    def __init__(self, n: int, k: int, rank: int = 4) -> None:
        super().__init__()
        self.base = sparse_(nn.Linear(k, n))
        names = ("one", "two")
        self.a = nn.ModuleDict({name: nn.Linear(k, rank, bias=False) for name in names})
        self.b = nn.ModuleDict({name: nn.Linear(rank, n, bias=False) for name in names})
        self.dropout = nn.Dropout(0.1)
        self.scaling = dict.fromkeys(names, 2.0)
        self.active = ["one"]

    def forward(self, x: Tensor) -> Tensor:
        result = self.base(x)
        for name in self.active:
            lowered = self.a[name](self.dropout(x.to(self.a[name].weight.dtype)))
            result = result + self.b[name](lowered) * self.scaling[name]
        return result

    def merge(self, name: str, sign: int = 1) -> None:
        """Into the base, through `.data`, as PEFT does."""
        delta = self.b[name].weight @ self.a[name].weight * self.scaling[name]
        self.base.weight.data += sign * delta


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What was packed, one entry each time."""
    pack, made = slots.pack_binding, []
    monkeypatch.setattr(slots, "pack_binding", lambda *args: made.append(args[0]) or pack(*args))
    return made


def agree(fast: Callable[..., Any], model: nn.Module, x: Tensor) -> None:
    """As exact as eager."""
    with torch.no_grad():
        assert_no_worse(fast(x), model(x), copy.deepcopy(model).double()(x.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 17, 130])
def test_the_sum_is_in_the_epilogue_of_the_base(rows: int, dtype: torch.dtype) -> None:
    model, backend = Lora(96, 64).eval().to(dtype), Packing()
    agree(torch.compile(model, backend=backend), model, torch.randn(rows, 64).to(dtype))
    base, a, b = backend.compiler.report.nodes
    assert (base.weight, base.format, base.epilogue) == ("base.weight", "n_m[2:4]/float", ("add",))
    assert (a.weight, a.packed) == ("a.one.weight", False)
    assert (b.weight, b.packed) == ("b.one.weight", False)
    assert b.reason.startswith("product(96x4, 4x64) of rank 4, multiplied out, takes ")
    report = str(backend.compiler.report)
    assert "strips +add" in report
    assert "product(96x4, 4x64) of rank 4, multiplied out, takes " in report


@st.composite
def sums(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A base with adapters, thin and thick ones, one or two of them."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    model = Lora(96, 64, draw(st.sampled_from((1, 4, 16, 80)))).eval()
    if draw(st.booleans()):
        model.base = nn.Linear(64, 96, bias=draw(st.booleans()))
    model.active = draw(st.sampled_from((["one"], ["one", "two"])))
    model.scaling["two"] = draw(st.sampled_from((0.5, 1.0, -3.0)))
    if draw(st.booleans()):
        sparse_(model.a["two"])
    dtype = draw(st.sampled_from((torch.float32, torch.bfloat16)))
    rows = draw(st.sampled_from((0, 1, 3, 17, 64, 130)))
    return model.to(dtype), torch.randn(rows, 64).to(dtype)


@given(sums())
@settings(max_examples=20)
def test_any_sum_is_as_exact_as_eager(case: tuple[nn.Module, Tensor]) -> None:
    torch._dynamo.reset()
    model, x = case
    agree(torch.compile(model, backend=Packing()), model, x)


def test_adapters_are_live(packings: list[object]) -> None:
    """Whatever is done to them the next result has, and nothing is packed again for it."""
    model, x, backend = Lora(96, 64).eval(), torch.randn(3, 64), Packing()
    fast = torch.compile(model, backend=backend)
    agree(fast, model, x)
    assert len(packings) == 1

    def write() -> None:
        with torch.no_grad():
            model.a["one"].weight.copy_(torch.randn(4, 64))
            model.b["one"].weight.mul_(2)

    def write_behind() -> None:
        model.a["one"].weight.data += 1

    for change in (
        write,
        write_behind,
        lambda: setattr(model, "active", ["two"]),
        lambda: model.scaling.update(two=0.5),
        lambda: setattr(model, "active", ["one", "two"]),
        lambda: setattr(model, "active", []),
        lambda: setattr(model, "active", ["one"]),
        lambda: setattr(model.a["one"], "weight", nn.Parameter(torch.randn(4, 64))),
    ):
        change()
        agree(fast, model, x)
    assert len(packings) == 1


def test_what_is_merged_into_the_base() -> None:
    """The base no longer has its zeros then, and runs dense until it has them again."""
    model, x, backend = Lora(96, 64).eval(), torch.randn(3, 64), Packing()
    fast = torch.compile(model, backend=backend)
    agree(fast, model, x)
    kept = model.base.weight.clone()
    with torch.no_grad():
        model.merge("one")
        model.active = []
        agree(fast, model, x)
        model.base.weight.data.copy_(kept)
        model.active = ["one"]
        agree(fast, model, x)


def test_adapters_of_zeros_are_packed() -> None:
    model, x, backend = Lora(96, 64, rank=16).eval(), torch.randn(3, 64), Packing()
    sparse_(model.a["one"])
    agree(torch.compile(model, backend=backend), model, x)
    assert backend.packed == ["base.weight", "a.one.weight"]


def test_adapters_that_train() -> None:
    model, x, backend = Lora(96, 64).eval(), torch.randn(3, 64), Packing()
    model.base.requires_grad_(False)
    torch.compile(model, backend=backend)(x).square().sum().backward()
    found = [model.a["one"].weight.grad.clone(), model.b["one"].weight.grad.clone()]
    model.zero_grad()
    model(x).square().sum().backward()
    torch.testing.assert_close(found, [model.a["one"].weight.grad, model.b["one"].weight.grad])
    assert backend.packed == ["base.weight"]


def test_a_large_rank_is_multiplied_out_and_follows_its_factors(packings: list[object]) -> None:
    model, x, backend = Lora(96, 64, rank=80).eval(), torch.randn(3, 64), Packing()
    fast = torch.compile(model, backend=backend)
    agree(fast, model, x)
    names = [node.weight for node in backend.compiler.report.nodes]
    assert names == ["base.weight", "b.one.weight x a.one.weight"]
    model.active = ["two"]
    agree(fast, model, x)
    before = len(packings)
    model.active = ["one"]
    agree(fast, model, x)
    assert len(packings) == before
    with torch.no_grad():
        model.b["one"].weight.mul_(-1)
    agree(fast, model, x)
    assert len(packings) == before + 1


def test_of_peft_itself() -> None:
    """Its adapter is what `Lora` writes."""
    peft: Any = pytest.importorskip("peft")
    base = nn.Sequential(sparse_(nn.Linear(64, 96))).requires_grad_(False)
    config = peft.LoraConfig(r=4, target_modules=["0"], init_lora_weights=False)
    model, x, backend = peft.get_peft_model(base, config).eval(), torch.randn(3, 64), Packing()
    agree(torch.compile(model, backend=backend), model, x)
    first, *_, last = backend.compiler.report.nodes
    assert (first.format, first.epilogue) == ("n_m[2:4]/float", ("add",))
    assert last.reason.startswith("product(96x4, 4x64) of rank 4, multiplied out, takes ")
