"""Weights that no longer fit their format: their linear runs dense, says so, and comes back."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from packing import MLP, Packing, close, settle, sparse_
from torch import Tensor, nn

import sparsecompile as sc


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
            model.up.weight.normal_(0, count)
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
    model.weight.normal_()
    close(fast(x), model(x))
    storage = weakref.ref(model.weight.untyped_storage())
    model.weight = nn.Parameter(sparse_(nn.Linear(64, 64)).weight, requires_grad=False)
    settle()
    gc.collect()
    assert storage() is None
    close(fast(x), model(x))


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
