"""Weights that change, are shared, or are computed: the next call gives the current answer."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse
from sparsecompile.weights.cache import PACK_CACHE, Made
from sparsecompile.weights.expression import Apply, Leaf, evaluate


def made_of(tensor: Tensor) -> dict[Any, Made[Any]]:
    return PACK_CACHE._memory(tensor).made


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


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_a_fused_optimizer_s_step_is_noticed(kind: str) -> None:
    """It leaves the version counters of weights as they are."""
    model = MLP()
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            close(fast(x), model(x))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    with torch.no_grad():
        close(fast(x), model(x))


def test_a_weight_whose_mask_is_replaced_is_kept_once() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 32), requires_grad=False)
            self.register_buffer("mask", (torch.rand(64, 32) > 0.8).float())

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight * self.mask)

    model, counts = Masked(), []
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(5):
            close(fast(x), model(x))
            counts.append(len(made_of(model.weight)))
            model.mask = (torch.rand(64, 32) > 0.8).float()
    assert counts[1:] == counts[1:2] * 4


def test_functions_of_one_name_are_told_apart() -> None:
    def times(factor: float) -> Callable[[Tensor], Tensor]:
        @sc.weight_function(lossy="")
        def scaled(weight: Tensor) -> Tensor:
            return weight * factor

        return scaled

    leaf = nn.Parameter(torch.ones(2, 2))
    binding = Leaf(0, "weight")
    for factor in (2.0, 3.0):
        apply = Apply(times(factor), (binding,))
        made = PACK_CACHE.get(apply, (leaf,), "value", partial(evaluate, apply, (leaf,)))
        assert made.value[0, 0] == factor


def test_dense_and_back_without_a_recompile() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    before = model.up.weight.detach().clone()
    with torch.no_grad():
        fast(x)
        model.up.weight.copy_(torch.randn(64, 32))
        close(fast(x), model(x))
        model.up.weight.copy_(before)
        close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1


def test_what_does_not_fit_any_more_is_said_once_a_change(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    before = model.up.weight.detach().clone()
    said = "up.weight cannot be packed as n_m[2:4]/float: row 0, group 0 keeps 4 of 4"
    with torch.no_grad(), caplog.at_level("WARNING", "sparsecompile"):
        fast(x)
        assert not backend.compiler.report.misfits
        for count in (1, 2):
            model.up.weight.fill_(count)
            for _ in range(2):
                close(fast(x), model(x))
                # What is asked for other weights, here none, has every graph look again.
                sc.refresh(nn.ReLU())
            texts = [r.getMessage() for r in caplog.records if r.name == "sparsecompile"]
            assert len(texts) == count
            assert texts[-1].startswith(said)
            assert texts[-1].endswith("; its linear runs dense until it can")
        model.up.weight.copy_(before)
        close(fast(x), model(x))
    assert len([r for r in caplog.records if r.name == "sparsecompile"]) == 2
    report = backend.compiler.report
    assert f"ran dense after all, with other weights: {said}"[:90] in str(report)
    assert json.loads(report.to_json())["misfits"]["up.weight"] in texts[-1]
    report.to_html(tmp_path / "report.html")
    assert f"with other weights: {said}" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("formats", [["bitmap"], ["csr"], ["block[8x8]"]])
def test_a_weight_that_needs_more_bytes_fits_the_same_graph(formats: list[str]) -> None:
    model = nn.Linear(64, 64).requires_grad_(False)
    model.weight[:56] = 0
    backend = Packing(formats=formats)
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 64)
    close(fast(x), model(x))
    model.weight[:16] = 1
    close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1


def test_layers_compiled_one_by_one_share_a_graph_and_keep_their_weights() -> None:
    """Dynamo compiles one graph for modules of one structure and passes it each one's weights."""
    layers = [MLP() for _ in range(3)]
    layers[2].up.weight.data.fill_(1)
    backend = Packing()
    for layer in layers:
        layer.compile(backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(2):
            for layer in layers:
                close(layer(x), layer.forward(x))
        packs = [dict(made_of(layer.down.weight)) for layer in layers[:2]]
        for layer in layers:
            close(layer(x), layer.forward(x))
    assert backend.compiler.report.graphs == 1
    for layer, before in zip(layers, packs, strict=False):
        after = made_of(layer.down.weight)
        assert all(after[key] is value for key, value in before.items()), "packed again"


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


def test_a_tied_weight_is_packed_once_and_read_by_the_embedding() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(48, 32)
            self.head = sparse_(nn.Linear(32, 48, bias=False))
            self.embedding.weight = self.head.weight
            self.again = nn.Linear(32, 48, bias=False)
            self.again.weight = self.head.weight

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            return self.head(x) - self.again(x + 1)

    model = Tied()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    tokens = torch.arange(7)
    with torch.no_grad():
        close(fast(tokens), model(tokens))
        assert len(backend.packed) == 1
        model.head.weight.mul_(2)
        close(fast(tokens), model(tokens))


def test_graph_breaks_and_recompiles_pack_once() -> None:
    model = MLP()

    def run(x: Tensor) -> Tensor:
        x = model(x)
        torch._dynamo.graph_break()
        return model(x)

    fast = torch.compile(run, backend=Packing())
    with torch.no_grad():
        for m in (2, 3, 4):
            x = torch.randn(m, 32)
            close(fast(x), run(x))
    for weight in (model.up.weight, model.down.weight):
        assert len([k for k in made_of(weight) if k[1][0] == "layout"]) == 1


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


def test_torch_pruned_modules_are_packed_with_their_masks() -> None:
    """`torch.nn.utils.prune` computes `weight_orig * weight_mask` at every call."""
    model = nn.Sequential(nn.Linear(32, 32))
    prune.l1_unstructured(model[0], "weight", 0.8)
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        model[0].weight_mask.fill_(0)
        close(fast(x), model(x))
    assert len(backend.packed) == 1


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


@pytest.mark.parametrize("merged", [False, True])
def test_one_weight_that_no_longer_fits_runs_its_own_linear_dense(
    merged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a block of five, through Inductor: one warning, the others stay packed, and back again."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    parts = nn.ModuleList(sparse_(nn.Linear(64, 64)) for _ in range(5)).requires_grad_(False)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (part(x) for part in self.parts[:3])
            return self.parts[4](nn.functional.silu(self.parts[3](q + k * v))) + x

    model = Block()
    without = {} if merged else {"passes": {"without": ["merge_linears"]}}
    compiler = sc.Compiler(tune="off", **without)
    fast, x = torch.compile(model, backend=compiler), torch.randn(4, 64)
    with torch.no_grad(), caplog.at_level("WARNING", "sparsecompile"):
        close(fast(x), model(x))
        before = parts[1].weight.clone()
        for place in (1, 3, 4):
            parts[place].weight.data.add_(0.5)
            for _ in range(3):
                close(fast(x), model(x))
        said = [r.getMessage() for r in caplog.records if r.name == "sparsecompile"]
        assert len(said) == 3
        assert all("; its linear runs dense until it can" in line for line in said)
        assert "parts.1.weight" in said[0]
        parts[1].weight.copy_(before)
        close(fast(x), model(x))
    assert compiler.report.graphs == 1
    assert set(compiler.report.misfits) >= {"parts.3.weight", "parts.4.weight"}


def test_a_weight_that_is_lent_is_not_kept_alive() -> None:
    model = sparse_(nn.Linear(64, 64)).requires_grad_(False)
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 64)
    fast(x)
    model.weight.fill_(1)
    close(fast(x), model(x))
    storage = weakref.ref(model.weight.untyped_storage())
    model.weight = nn.Parameter(sparse_(nn.Linear(64, 64)).weight, requires_grad=False)
    gc.collect()
    assert storage() is None
    close(fast(x), model(x))


def test_the_same_values_are_not_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP()
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    with torch.no_grad():
        fast(x)
        monkeypatch.setattr(
            "sparsecompile.lowering.slots.pack_binding", lambda *_: pytest.fail("packed")
        )
        model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
        close(fast(x), model(x))
        torch._dynamo.reset()
        close(torch.compile(model, backend=Packing())(x), model(x))


def test_explanations_look_at_what_weights_hold_now() -> None:
    """After a write that torch does not count, in either direction."""
    model, x = nn.Linear(64, 64).requires_grad_(False), torch.randn(4, 64)
    formats = []
    for write in (lambda w: w.mul_(sc.NM(2, 4).prune(w)), lambda w: w.normal_()):
        formats.append(sc.explain(model, x, tune="off").nodes[0].format)
        write(model.weight.data)
    formats.append(sc.explain(model, x, tune="off").nodes[0].format)
    assert formats == [None, "n_m[2:4]/float", None]


def test_a_weight_that_is_written_while_it_is_packed_is_left_dense(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As another thread may do it: no refusal reaches the caller."""
    model, x = sparse_(nn.Linear(64, 64)).requires_grad_(False), torch.randn(4, 64)

    def refuse(*_: object) -> Tensor:
        raise sc.Reject("row 0, group 0 keeps 4 of 4")

    monkeypatch.setattr("sparsecompile.lowering.slots.pack_binding", refuse)
    close(torch.compile(model, backend=Packing())(x), model(x))
    assert "a graph is left dense: row 0, group 0 keeps 4 of 4" in caplog.text


def test_an_average_of_weights_is_swapped_in_and_out() -> None:
    """As scripts do it by hand, through `.data`, and as torch's own averages do it."""
    model, x = MLP(), torch.randn(4, 32)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    with torch.no_grad():
        fast, fast_average = (torch.compile(m, backend=Packing()) for m in (model, averaged))
        for step in range(3):
            for parameter in model.parameters():
                parameter.mul_(1 + step)
            averaged.update_parameters(model)
            close(fast(x), model(x))
            close(fast_average(x), averaged(x))
            backup = [parameter.data for parameter in model.parameters()]
            for own, other in zip(model.parameters(), averaged.module.parameters(), strict=True):
                own.data = other.data
            close(fast(x), averaged(x))
            for own, data in zip(model.parameters(), backup, strict=True):
                own.data = data
            close(fast(x), model(x))
            for own, other in zip(model.parameters(), averaged.module.parameters(), strict=True):
                own.data.lerp_(other.data, 0.5)
            close(fast(x), model(x))


@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}, {}])
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_optimizers_that_step_between_calls_are_noticed(kind: str, how: dict[str, bool]) -> None:
    model, x = MLP(), torch.randn(4, 32)
    fast = torch.compile(model, backend=Packing())
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, **how)
    for _ in range(3):
        with torch.no_grad():
            close(fast(x), model(x))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        close(fast(x), model(x))
