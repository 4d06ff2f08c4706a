"""Weights that change: the next call gives the current answer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import nn

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse


def writes() -> list[tuple[str, Callable[[MLP], object]]]:
    other = MLP()
    return [
        ("in place", lambda m: m.up.weight.mul_(2)),
        ("through .data", lambda m: setattr(m.up.weight, "data", m.up.weight.data * 3)),
        ("a new parameter", lambda m: setattr(m.up, "weight", nn.Parameter(m.up.weight * 2))),
        ("load_state_dict", lambda m: m.load_state_dict(other.state_dict())),
        ("assign", lambda m: m.load_state_dict(other.state_dict(), assign=True)),
        ("dense", lambda m: m.up.weight.add_(1)),
        ("bias", lambda m: m.up.bias.add_(1)),
        ("zero", lambda m: m.up.weight.zero_()),
    ]


@pytest.mark.parametrize(("name", "write"), writes(), ids=[name for name, _ in writes()])
def test_a_changed_weight_is_noticed(name: str, write: Callable[[MLP], object]) -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        write(model)
        close(fast(x), model(x))
        model.up.weight.copy_(sparse_(nn.Linear(32, 64)).weight)
        close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1 or name in ("a new parameter", "assign")


def test_refresh_sees_what_torch_does_not() -> None:
    model = MLP()
    fast = torch.compile(model, backend=Packing())
    x = torch.randn(4, 32)
    with torch.no_grad():
        fast(x)
        model.up.weight.data.mul_(2)
        sc.refresh(fast)
        close(fast(x), model(x))


def test_refresh_of_a_function_says_what_it_takes() -> None:
    model = MLP()
    fast = torch.compile(lambda x: model(x), backend=Packing())
    with pytest.raises(sc.ModelError, match=r"takes a module, not function: .* every module"):
        sc.refresh(fast)  # type: ignore[arg-type]


def test_inference_mode() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.inference_mode():
        close(fast(x), model(x))
        model.up.weight.mul_(2)
        close(fast(x), model(x))
    assert len(backend.packed) == 2


def test_nan_and_infinity_in_kept_weights() -> None:
    model = sparse_(nn.Linear(32, 32)).requires_grad_(False)
    kept = (model.weight != 0).nonzero()
    model.weight[tuple(kept[0])] = float("nan")
    model.weight[tuple(kept[40])] = float("inf")
    backend = Packing()
    x = torch.randn(4, 32).abs() + 0.1
    torch.testing.assert_close(
        torch.compile(model, backend=backend)(x), model(x), equal_nan=True, rtol=1e-5, atol=1e-5
    )
    assert backend.packed


def test_parameters_of_a_compiled_model_can_be_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `load_state_dict` and conversions do it where torch is told to."""
    torch._dynamo.reset()
    model, x = MLP(), torch.randn(4, 32)
    other = {name: value * 2 for name, value in model.state_dict().items()}
    fast = torch.compile(model, backend="sparse", options={"tune": "off"})
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    with torch.no_grad():
        close(fast(x), model(x))
        gc.collect()
        model.load_state_dict(other)
        close(fast(x), model(x))
        torch.utils.swap_tensors(model.up.weight, nn.Parameter(model.up.weight * 3))
        close(fast(x), model(x))
        gc.collect()
        model.bfloat16()
        x = x.bfloat16()
        assert_no_worse(fast(x), model(x), deepcopy(model).double()(x.double()))


def test_explanations_look_at_what_weights_hold_now() -> None:
    """After a write that torch does not count, in either direction."""
    model, x = nn.Linear(64, 64).requires_grad_(False), torch.randn(4, 64)
    formats = []
    for write in (lambda w: w.mul_(sc.NM(2, 4).prune(w)), lambda w: w.normal_()):
        formats.append(sc.explain(model, x, tune="off").nodes[0].format)
        write(model.weight.data)
    formats.append(sc.explain(model, x, tune="off").nodes[0].format)
    assert formats == [None, "n_m[2:4]/float", None]
