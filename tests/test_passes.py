"""Every pass and the whole pipeline keep what a graph computes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sparsecompile import (
    NM,
    Compiler,
    Edit,
    Pass,
    packed_linears,
    writes_in_place,
)
from sparsecompile.testing import apply_passes, captured, check_passes, small_models

PASSES = Compiler().passes


def pruned(linear: nn.Linear, structure: Any = None, share: float | None = None) -> nn.Linear:
    mask = (structure or NM(2, 4)).prune(linear.weight.detach(), share)
    linear.weight.data.mul_(mask)
    return linear.requires_grad_(False)


def rewritten(model: Callable[..., Any], *args: Any) -> Edit:
    with torch.no_grad():
        return check_passes(PASSES, *captured(model, *args))


def epilogues(edit: Edit) -> list[tuple[str, ...]]:
    return [match["epilogue"] for match in packed_linears(edit)]


def refusals(edit: Edit, name: str) -> list[str]:
    return [r.reason for r in edit.rewrites if r.pass_name == name and r.reason]


@pytest.mark.parametrize("count", range(1, len(PASSES) + 1))
@given(data=st.data())
@settings(max_examples=8)
def test_pipeline_preserves_the_function(count: int, data: st.DataObject) -> None:
    model, x = data.draw(small_models())
    with torch.no_grad():
        gm, inputs = captured(model, x)
        check_passes(PASSES[:count], gm, inputs)


@pytest.mark.parametrize("current", PASSES, ids=lambda p: p.name)
@given(data=st.data())
@settings(max_examples=8)
def test_each_pass_preserves_the_function(current: Pass, data: st.DataObject) -> None:
    model, x = data.draw(small_models())
    with torch.no_grad():
        gm, inputs = captured(model, x)
        check_passes([current], gm, inputs)


@pytest.mark.parametrize(
    "spelled",
    [
        lambda x, w, b: F.linear(x, w, b),
        lambda x, w, b: F.linear(x, weight=w, bias=b),
        lambda x, w, b: torch.addmm(b, x, w.t()),
        lambda x, w, b: x @ w.t() + b,
        lambda x, w, b: b + torch.matmul(x, w.T),
        lambda x, w, b: x @ w.mT + b,
        lambda x, w, b: torch.mm(x, w.t()) + b,
        lambda x, w, b: x.matmul(w.t()).add(b),
        lambda x, w, b: torch.einsum("bk,nk->bn", x, w) + b,
    ],
)
def test_spellings_of_linear(spelled: Callable[..., torch.Tensor]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = pruned(nn.Linear(16, 12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return spelled(x, self.inner.weight, self.inner.bias)

    edit = rewritten(Model(), torch.randn(5, 16))
    (match,) = packed_linears(edit)
    assert match["bias"] is not None
    assert match["format"] == "n_m[2:4]/float"


def test_transposed_weight_is_packed_along_its_inputs() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.randn(12, 16)
            self.weight = nn.Parameter((weight * NM(2, 4).prune(weight)).t().contiguous(), False)
            self.bias = nn.Parameter(torch.randn(12), False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, x, self.weight)

    edit = rewritten(Conv1D(), torch.randn(5, 16))
    (match,) = packed_linears(edit)
    assert match["format"] == "n_m[2:4]/float"


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda x, w, b: torch.addmm(b, x, w.t(), beta=2), "addmm scales its terms"),
        (lambda x, w, b: torch.addmm(x, x, w.t()), "what is added is no bias of shape [n]"),
        (lambda x, w, b: F.dropout(F.linear(x, w), 0.5, True), "dropout is switched on"),
        (lambda x, w, b: F.linear(x, w, b) + b, "the linear has a bias already"),
        (lambda x, w, b: F.linear(x, w) + w, "what is added is no bias of shape [n]"),
        (lambda x, w, b: F.linear(x, w) + x, "what is added is not a weight of the model"),
        (lambda x, w, b: (lambda y: (y, y + b))(F.linear(x, w)), "without the bias is used too"),
        (lambda x, w, b: (lambda y: (x.add_(1), y + b))(F.linear(x, w)), "in place in between"),
        (lambda x, w, b: torch.einsum("bk,nk->nb", x, w), "einsum is no linear of a weight"),
        (lambda x, w, b: torch.einsum("bk,nk->bn", x[:, :1], w), "repeats what has one column"),
        (lambda x, w, b: torch.matmul(x, b), "the weight is not two-dimensional"),
        (lambda x, w, b: torch.matmul(x, x.relu()), "reads no weight of the model"),
    ],
)
def test_what_is_not_canonicalized(use: Callable[..., Any], reason: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = pruned(nn.Linear(16, 16))

        def forward(self, x: torch.Tensor) -> Any:
            return use(x, self.inner.weight, self.inner.bias)

    with torch.no_grad():
        edit = apply_passes(PASSES, *captured(Model(), torch.randn(16, 16)))
    assert any(reason in r for r in refusals(edit, "canonicalize"))


def test_dtypes_that_differ_and_other_devices_are_refused() -> None:
    weight = pruned(nn.Linear(16, 16))
    graph = torch.fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    graph.output(graph.call_function(F.linear, (x, w)))
    gm = torch.fx.GraphModule(nn.Module(), graph)
    x.meta["val"], w.meta["val"] = torch.randn(2, 16, dtype=torch.bfloat16), weight.weight
    edit = apply_passes(PASSES, gm, [x.meta["val"], weight.weight])
    assert "kernels need them equal" in refusals(edit, "pack_linear")[0]
    there = nn.Parameter(torch.zeros(16, 16, device="meta"), False)
    edit = apply_passes(PASSES, gm, [x.meta["val"], there])
    assert "is on meta; there are kernels for cpu" in refusals(edit, "pack_linear")[0]
    edit = apply_passes(PASSES, gm, [x.meta["val"], 3])
    assert "the weight is int, not a tensor" in refusals(edit, "pack_linear")[0]


STEPS: list[tuple[Callable[..., torch.Tensor], tuple[str, ...]]] = [
    (lambda y, r: F.relu(y), ("relu",)),
    (lambda y, r: y.relu(), ("relu",)),
    (lambda y, r: F.relu(y, inplace=True), ("relu",)),
    (lambda y, r: F.gelu(y), ("gelu",)),
    (lambda y, r: F.gelu(y, approximate="tanh"), ("gelu_tanh",)),
    (lambda y, r: F.silu(y), ("silu",)),
    (lambda y, r: torch.sigmoid(y), ("sigmoid",)),
    (lambda y, r: y.tanh(), ("tanh",)),
    (lambda y, r: y + r, ("add",)),
    (lambda y, r: r + y, ("add",)),
    (lambda y, r: torch.mul(r, y), ("mul",)),
    (lambda y, r: F.silu(y) * r + r, ("silu", "mul", "add")),
    (lambda y, r: F.dropout(F.gelu(y), 0.1, False) + r, ("gelu", "add")),
]


@pytest.mark.parametrize(("step", "epilogue"), STEPS)
def test_epilogues(step: Callable[..., torch.Tensor], epilogue: tuple[str, ...]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = pruned(nn.Linear(16, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return step(self.inner(x), x)

    assert epilogues(rewritten(Model(), torch.randn(5, 16))) == [epilogue]


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda y, x: (F.relu(y), y), "the linear's result is used 2 times"),
        (lambda y, x: y * y, "both operands are the linear's result"),
        (lambda y, x: y + x[:1], "the other operand has another shape or dtype"),
        (lambda y, x: y + 1.0, "nothing is known of the shape and dtype of 1.0"),
        (lambda y, x: ((y + x) * x) + x, "the epilogue reads 2 tensors already"),
        (lambda y, x: (x.add_(1), F.relu(y))[1], "writes in place in between"),
    ],
)
def test_what_is_not_fused(use: Callable[..., Any], reason: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = pruned(nn.Linear(16, 16))

        def forward(self, x: torch.Tensor) -> Any:
            return use(self.inner(x), x)

    edit = rewritten(Model(), torch.randn(5, 16))
    assert any(reason in r for r in refusals(edit, "fuse_epilogue"))


class Attention(nn.Module):
    def __init__(self, between: Callable[[torch.Tensor], Any] = lambda x: None) -> None:
        super().__init__()
        self.q, self.k = pruned(nn.Linear(16, 16)), pruned(nn.Linear(16, 8))
        self.v = pruned(nn.Linear(16, 8))
        self.between = between

    def forward(self, x: torch.Tensor) -> Any:
        q = self.q(x)
        self.between(x)
        k = self.k(x).view(-1)
        return q, k, self.v(x)


@pytest.mark.parametrize(
    ("write", "writes"),
    [
        (lambda x: x.add_(1), True),
        (lambda x: F.relu(x, True), True),
        (lambda x: F.dropout(x, 0.5, True, True), True),
        (lambda x: F.silu(x, inplace=True), True),
        (lambda x: torch.relu_(x), True),
        (lambda x: torch.add(x, x, out=x), True),
        (lambda x: torch.ops.aten.add_.Tensor(x, x), True),
        (lambda x: torch.ops.aten.add.Tensor(x, x), False),
        (lambda x: F.relu(x), False),
        (lambda x: x.__invert__(), False),
    ],
)
def test_writes_in_place_are_seen(write: Callable[..., Any], writes: bool) -> None:
    graph = torch.fx.symbolic_trace(write).graph
    assert any(writes_in_place(node) for node in graph.nodes) == writes


@pytest.mark.parametrize(
    ("function", "writes"),
    [
        (operator.setitem, True),
        (operator.imul, True),
        (operator.iand, True),
        (operator.mul, False),
        (operator.invert, False),
        (operator.is_, False),
    ],
)
def test_operators_that_write(function: Callable[..., Any], writes: bool) -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    assert writes_in_place(graph.call_function(function, (x, x))) == writes


def test_linears_of_one_input_become_one() -> None:
    edit = rewritten(Attention(), torch.randn(5, 16))
    (match,) = packed_linears(edit)
    assert edit.value(match["weight"]).shape == (32, 16)


def test_linears_are_not_merged_over_a_write() -> None:
    model = Attention(lambda x: x.add_(1))
    with torch.no_grad():
        gm, inputs = captured(model, torch.randn(5, 16))
        edit = check_passes(PASSES, gm, inputs)
    assert len(list(packed_linears(edit))) == 3
    assert "writes in place between" in refusals(edit, "merge_linears")[0]


def test_merging_keeps_blocks_whole() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = pruned(nn.Linear(32, 20), None)
            self.b = pruned(nn.Linear(32, 16), None)

        def forward(self, x: torch.Tensor) -> Any:
            return self.a(x), self.b(x)

    model = Model()
    for linear in (model.a, model.b):
        linear.weight.data[8:] = 0
    with torch.no_grad():
        edit = check_passes(
            Compiler(formats=["block[8x8]"]).passes,
            *captured(model, torch.randn(3, 32)),
            formats=["block[8x8]"],
        )
    assert refusals(edit, "merge_linears") == ["20 rows are not a multiple of the format's 8"]
