"""`drop_dead_channels`: linears without what is always zero, or never read."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from chains import check
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import Packing, close, settle, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.passes.canonicalize import Canonicalize
from sparsecompile.passes.drop_dead_channels import DropDeadChannels
from sparsecompile.testing import apply_passes, assert_no_worse, captured, check_passes
from sparsecompile.weights.channels import take_channels

STEPS = (F.relu, F.gelu, F.silu, torch.tanh)


class Gated(nn.Module):
    """`down(step(gate(x)) * up(x))`, or without a gate `down(step(up(x)))`."""

    def __init__(self, step: object = F.silu, gated: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(16, 64, bias=bias), nn.Linear(16, 64, bias=bias)
        self.down = nn.Linear(64, 24)
        self.step, self.gated = step, gated
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.down(self.step(self.up(x)))  # type: ignore[operator]
        return self.down(self.step(self.gate(x)) * self.up(x))  # type: ignore[operator]


def kill(linear: nn.Linear, dead: Tensor) -> None:
    """Set rows to zero, their biases included."""
    linear.weight[dead] = 0
    if linear.bias is not None:
        linear.bias[dead] = 0


def dead_rows(**options: bool) -> Gated:
    """40 of 64 channels, half by one linear and half by the other."""
    torch.manual_seed(0)
    model = Gated(**options)
    kill(model.gate, torch.arange(0, 40, 2))
    kill(model.up, torch.arange(1, 41, 2))
    return model


def reasons(backend: Packing) -> list[str]:
    return [rewrite.reason for rewrite in _rewrites(backend.compiler.report.graph_reports)]


def _rewrites(graphs: Iterable[Any]) -> list[Any]:
    return [r for g in graphs for r in g.rewrites if r.pass_name == "drop_dead_channels"]


@st.composite
def models(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Of one or two such parts, with dead rows, dead columns, and biases that are not zero."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    shapes = draw(st.lists(st.booleans(), min_size=1, max_size=2))
    layers: list[nn.Module] = []
    for gated in shapes:
        part = Gated(draw(st.sampled_from(STEPS)), gated, draw(st.booleans()))
        for linear in (part.gate, part.up):
            dead = torch.rand(64) < draw(st.sampled_from((0, 0.3, 0.8, 1)))
            kill(linear, dead)
            if linear.bias is not None and draw(st.booleans()):
                linear.bias += 1
        part.down.weight[:, torch.rand(64) < draw(st.sampled_from((0, 0.4, 1)))] = 0
        if draw(st.booleans()):
            sparse_(part.up)
        layers += [part, nn.Linear(24, 16).requires_grad_(False)]
    x = torch.randn(draw(st.sampled_from(((16,), (3, 16), (2, 5, 16)))))
    dtype = draw(st.sampled_from((torch.float32, torch.bfloat16)))
    return nn.Sequential(*layers).to(dtype), x.to(dtype)


def test_any_model_is_as_exact_as_eager() -> None:
    found: set[bool] = set()

    @given(models())
    @settings(max_examples=25)
    @torch.no_grad()
    def run(case: tuple[nn.Module, Tensor]) -> None:
        model, x = case
        gm, inputs = captured(model, x)
        edit = apply_passes([Canonicalize(), DropDeadChannels()], gm, inputs)
        exact = copy.deepcopy(model).double()(x.double())
        assert_no_worse(edit.module(*inputs)[0], model(x), exact)
        found.add(any(not rewrite.reason for rewrite in _rewrites([edit])))

    run()
    assert found == {True, False}


@given(models())
@settings(max_examples=6)
def test_the_pass_preserves_the_function(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    gm, inputs = captured(model.float(), x.float())
    check_passes([Canonicalize(), DropDeadChannels()], gm, inputs)


def test_all_weights_shrink() -> None:
    model, backend = dead_rows(), Packing(tune="off")
    check(model, torch.randn(3, 16), backend)
    report = backend.compiler.report
    found = {n.weight: (n.shape, n.expression) for n in report.nodes}
    assert found == {
        "gate.weight": ((24, 16), "40 of 64 rows dropped"),
        "up.weight": ((24, 16), "40 of 64 rows dropped"),
        "down.weight": ((24, 24), "40 of 64 columns dropped"),
    }
    assert report.dense_bytes == (64 * 16 * 2 + 64 * 24) * 4
    assert report.packed_bytes < 0.5 * report.dense_bytes
    assert "take_channels" not in report.after
    assert "40 of 64 rows dropped" in str(report)


def test_what_nobody_reads_is_not_computed() -> None:
    model, backend = Gated(gated=False), Packing()
    model.up.bias.add_(1)
    model.down.weight[:, 10:60] = 0
    check(model, torch.randn(3, 16), backend)
    assert {n.weight: n.shape for n in backend.compiler.report.nodes} == {
        "up.weight": (16, 16),
        "down.weight": (24, 16),
    }


def test_any_m() -> None:
    model, backend = dead_rows(), Packing()
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows in (2, 3, 70):
            x = torch.randn(rows, 16)
            close(fast(x), model(x))
    assert reasons(backend) == [""]


@torch.no_grad()
def test_weights_that_change() -> None:
    model, x, backend = dead_rows(), torch.randn(3, 16), Packing()
    fast = check(model, x, backend)
    for change in (
        lambda: model.up.weight.mul_(3),
        lambda: model.down.weight.add_(1),
        # One channel dies, another comes to life; then more than there is room for.
        lambda: (kill(model.up, torch.tensor([63])), model.up.weight[1].fill_(1)),
        lambda: model.gate.bias.add_(1),
        lambda: model.up.weight.copy_(torch.randn(64, 16)),
        lambda: model.load_state_dict(dead_rows().state_dict()),
    ):
        before = fast(x)
        change()
        assert not torch.allclose(fast(x), before)
        close(fast(x), model(x))
        settle()


def test_the_pass_can_be_left_out() -> None:
    backend = Packing(passes={"without": ["drop_dead_channels"]})
    check(dead_rows(), torch.randn(3, 16), backend)
    assert {n.shape for n in backend.compiler.report.nodes} == {(64, 16), (24, 64)}


class Others(Gated):
    """What keeps channels from being dropped."""

    def __init__(self, kind: str) -> None:
        super().__init__(bias=False)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.silu(self.gate(x)) * self.up(x)
        if self.kind == "read":
            return self.down(hidden).sum(-1) + hidden.sum(-1)
        if self.kind == "sigmoid":
            return self.down(torch.sigmoid(self.up(x)))
        if self.kind == "broadcast":
            return self.down(self.up(x) * x[..., :1])
        if self.kind == "input":
            return self.down(self.up(x) * x.repeat(*(1,) * (x.dim() - 1), 4))
        if self.kind == "inner":
            up = self.up(x)
            return self.down(F.relu(up)) + up.sum()
        return F.linear(hidden, self.down.weight, hidden[:24])


@pytest.mark.parametrize("kind", ["read", "sigmoid", "broadcast", "input", "inner", "bias"])
def test_what_others_read_or_make_stays(kind: str) -> None:
    model, backend = Others(kind), Packing()
    kill(model.up, torch.arange(40))
    kill(model.gate, torch.arange(40))
    x = torch.randn(16) if kind == "bias" else torch.randn(3, 16)
    check(model, x, backend)
    assert not reasons(backend)


def test_what_is_packed_in_the_model_stays() -> None:
    model, backend = dead_rows(), Packing()
    sc.compress(model)
    with torch.no_grad():
        torch.compile(model, backend=backend)(torch.randn(3, 16))
    assert "the model holds gate.weight packed as" in reasons(backend)[0]


def test_zeros_that_pack_better_stay_where_they_are() -> None:
    """Without some columns a 2:4 weight has no groups of four left."""
    model, backend = Gated(gated=False), Packing(formats=["2:4"])
    sparse_(model.up)
    sparse_(model.down)
    kill(model.up, torch.tensor([0, 5, 9, 14, 21, 30, 38, 47]))
    check(model, torch.randn(3, 16), backend)
    (reason,) = reasons(backend)
    assert "8 of 64 channels are dead; without them weights take " in reason


def test_weights_to_be_quantised_are_left_alone() -> None:
    backend = Packing(quantize="int8-weight-only")
    with torch.no_grad():
        torch.compile(dead_rows(), backend=backend)(torch.randn(3, 16))
    assert not reasons(backend)


def test_more_channels_in_use_than_there_is_room_for() -> None:
    weight = torch.eye(8)
    with pytest.raises(sc.Reject, match="8 of 8 channels are in use, no longer up to 4"):
        take_channels(weight, 0, 4, ((weight, None),), (weight,))
