"""Weights that come to fit other formats after their graph was compiled: it is compiled anew."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from packing import MLP, Packing, close, settle, sparse_
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.lowering import watch


def dense(n: int = 64, k: int = 32) -> nn.Linear:
    return nn.Linear(k, n).requires_grad_(False)


def prune_(weight: Tensor) -> None:
    weight.mul_(sc.NM(2, 4).prune(weight))


@pytest.mark.parametrize("through_data", [False, True])
def test_a_model_that_is_pruned_after_compilation_is_packed(
    through_data: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, backend = nn.Sequential(dense(), nn.ReLU(), dense(32, 64)), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    close(fast(x), model(x))
    assert not backend.packed
    for linear in (model[0], model[2]):
        prune_(linear.weight.data if through_data else linear.weight)
    with caplog.at_level("INFO", "sparsecompile"):
        for _ in range(2 * watch.EVERY):
            close(fast(x), model(x))
            settle()
    assert backend.packed == ["0.weight", "2.weight"]
    said = [r.getMessage() for r in caplog.records if "zeros now" in r.getMessage()]
    assert sorted(said) == [
        f"{name} holds 50.0% zeros now, 0.0% when it was compiled, and fits n_m[2:4]/float; "
        "its graph is compiled anew at the next call"
        for name in ("0.weight", "2.weight")
    ]
    # What is packed now is looked at as any other packed weight.
    model[0].weight.data.mul_(2)
    close(fast(x), model(x))


def test_what_was_packed_before_stays_so_and_the_rest_joins_it() -> None:
    model, backend = nn.Sequential(sparse_(dense()), nn.ReLU(), dense(32, 64)), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    close(fast(x), model(x))
    assert backend.packed == ["0.weight"]
    prune_(model[2].weight)
    for _ in range(3):
        close(fast(x), model(x))
        settle()
    assert backend.packed == ["0.weight", "2.weight"]


def test_a_mask_that_is_a_buffer_is_known_again() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 32), requires_grad=False)
            self.register_buffer("mask", torch.ones(64, 32))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight * self.mask)

    model, backend = Masked(), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    close(fast(x), model(x))
    model.mask.mul_(sc.NM(2, 4).prune(model.weight))
    for _ in range(4):
        close(fast(x), model(x))
        settle()
    assert backend.packed == ["weight x mask"]


def test_a_weight_is_looked_at_once_a_change(caplog: pytest.LogCaptureFixture) -> None:
    """Zeros that no format takes: the look says so, and is not repeated."""
    model, backend = dense(), Packing(formats=["n_m[2:4]"])
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    fast(x)
    with caplog.at_level("INFO", "sparsecompile"):
        for factor in (1.0, 1.1):
            model.weight[:24] = 0
            model.weight.mul_(factor)
            for _ in range(2 * watch.EVERY):
                close(fast(x), model(x))
                settle()
    said = [r.getMessage() for r in caplog.records if "zeros now" in r.getMessage()]
    assert said == ["weight has other zeros now: no format that fits is smaller than dense"]
    assert backend.compiler.report.graphs == 1


def test_a_packed_weight_is_compiled_anew_once_it_fits_another_format(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, backend = sparse_(dense()), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    fast(x)
    with caplog.at_level("INFO", "sparsecompile"):
        model.weight[:24] = 0
        for _ in range(4):
            close(fast(x), model(x))
            settle()
        assert backend.compiler.report.graphs == 1
        model.weight.normal_().mul_((torch.rand(64, 32) > 0.85).float())
        for _ in range(4):
            close(fast(x), model(x))
            settle()
    assert backend.compiler.report.graphs == 2
    assert backend.compiler.report.nodes[-1].format not in (None, "n_m[2:4]/float")
    said = [r.getMessage() for r in caplog.records if "zeros now" in r.getMessage()]
    assert len(said) == 2
    assert said[0].endswith("and still fits n_m[2:4]/float")
    assert said[1].endswith("its graph is compiled anew at the next call")


def test_a_change_that_is_small_is_no_reason_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    model, backend = dense(), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    fast(x)
    monkeypatch.setattr(watch.WatchedGraph, "_look", lambda *_: pytest.fail("no zeros came"))
    for _ in range(2 * watch.EVERY):
        model.weight.mul_(1.1)
        model.weight[0, 0] = 0
        close(fast(x), model(x))


def test_the_look_is_beside_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, go = threading.Event(), threading.Event()
    look = watch.WatchedGraph._look

    def slow(self: watch.WatchedGraph, args: tuple[object, ...]) -> None:
        looking.set()
        go.wait(60)
        look(self, args)

    monkeypatch.setattr(watch.WatchedGraph, "_look", slow)
    model, backend = dense(), Packing()
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    fast(x)
    prune_(model.weight)
    close(fast(x), model(x))
    assert looking.wait(60)
    started = time.monotonic()
    for _ in range(3):
        close(fast(x), model(x))
    assert time.monotonic() - started < 30
    go.set()
    settle()
    close(fast(x), model(x))
    assert backend.packed == ["weight"]


def test_layers_that_share_a_graph_do_not_compile_it_for_ever() -> None:
    """One fits 2:4, one nothing, one another format: each is looked at once."""
    layers = [dense() for _ in range(3)]
    prune_(layers[1].weight)
    layers[2].weight.mul_((torch.rand(64, 32) > 0.9).float())
    backend = Packing()
    for layer in layers:
        layer.compile(backend=backend)
    x, graphs = torch.randn(4, 32), []
    for _ in range(6 * watch.EVERY):
        for layer in layers:
            close(layer(x), layer.forward(x))
            settle()
        graphs.append(backend.compiler.report.graphs)
    assert graphs[-1] == graphs[len(graphs) // 2] <= 4


def test_pruned_on_request_is_not_watched() -> None:
    """The pass prunes whatever the weight holds."""
    model, backend = dense(), Packing(prune="2:4")
    fast, x = torch.compile(model, backend=backend), torch.randn(4, 32)
    fast(x)
    model.weight[:48] = 0
    for _ in range(2 * watch.EVERY):
        fast(x)
        settle()
    assert backend.compiler.report.graphs == 1


def test_an_mlp_through_inductor() -> None:
    torch._dynamo.reset()
    model = MLP()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for linear in (model.up, model.down):
            linear.weight.normal_()
        compiler = sc.Compiler(tune="off")
        fast, x = torch.compile(model, backend=compiler), torch.randn(4, 32)
        close(fast(x), model(x))
        model.load_state_dict(before)
        for _ in range(4):
            close(fast(x), model(x))
            settle()
    assert [node.packed for node in compiler.report.nodes] == [False, False, True, True]
