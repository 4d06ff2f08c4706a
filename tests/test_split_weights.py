"""`split_weights`: which weights are taken apart, and what graphs make of them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch
from factors import OuterProduct
from packing import Packing, close, sparse_
from split import SUM, Pair, Three, blocks_and_columns, check, split_reasons
from torch import nn

import sparsecompile as sc
from sparsecompile.passes.split_weights import SplitWeights
from sparsecompile.testing import apply_passes, captured

WITHOUT = {"without": ["drop_dead_channels"]}
"""Rows and columns that count for nothing are not taken out first."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [(), (1,), (3, 5), (40,)])
def test_a_sum(rows: tuple[int, ...], dtype: torch.dtype) -> None:
    model, backend = Pair().to(dtype), Packing(passes=WITHOUT)
    check(model, torch.randn(*rows, 96).to(dtype), backend)
    nodes = backend.compiler.report.nodes
    assert [(n.weight, n.part, n.format) for n in nodes] == [
        (weight, part, format)
        for weight in ("a.weight", "b.weight")
        for part, format in enumerate(("block[16x16]/float", "block[4x1]/float"))
    ]
    assert {n.expression for n in nodes} == {SUM}
    # The last term and the residual are read by the kernel of the first; biases are there once.
    assert [n.epilogue for n in nodes] == [("add", "relu"), (), ("add", "add"), ()]
    (graph,) = backend.compiler.report.graph_reports
    after = backend.compiler.report.after
    alone = after.count("sparsecompile.linear.default")
    assert alone + sum(map(len, graph.regions)) == 4
    assert (alone < 4) == (rows in ((), (1,)))  # few rows of linears that follow each other
    assert " part(" not in after


def test_the_report(tmp_path: Path) -> None:
    report = sc.explain(Pair(), torch.randn(3, 96), tune="off", passes=WITHOUT)
    assert report.dense_bytes == 2 * 64 * 96 * 4
    assert report.packed_bytes == sum(n.packed_bytes for n in report.nodes) < report.dense_bytes
    text = str(report)
    assert text.startswith("2 of 2 linears packed")
    assert f"{SUM}, a kernel call for each part of\n  a, b" in text
    assert all("/" in f.format for node in report.nodes for f in node.findings)
    report.to_html(tmp_path / "report.html")
    assert f"<td>1 of {SUM}" in (tmp_path / "report.html").read_text()
    facts = report.to_json()
    assert '"part": 1' in facts
    assert f'"expression": "{SUM}"' in facts


def test_what_a_decomposition_finds_is_listed() -> None:
    (node,) = sc.explain(sparse_(nn.Linear(64, 64)), torch.randn(3, 64)).nodes
    found = {f.format: f for f in node.findings}["outlier_columns"]
    assert found.reason == "0 of 64 columns hold no zero, 1 to 2 are needed"
    model = blocks_and_columns(64, 96, sc.NM(2, 4))
    (node,) = sc.explain(model, torch.randn(3, 96)).nodes
    found = {f.format: f for f in node.findings}["outlier_columns"]
    assert node.format == "bitmap/float"
    assert found.nbytes is not None


def test_a_weight_that_is_smaller_as_it_is() -> None:
    model, backend = blocks_and_columns(64, 96, sc.NM(2, 4)), Packing()
    check(model, torch.randn(3, 96), backend)
    assert backend.packed == ["weight"]
    (reason,) = split_reasons(backend)
    assert reason.startswith("outlier_columns: sum(bitmap/float, block[4x1]/float) takes ")
    assert reason.endswith("neither measured")


def test_parts_that_take_more_than_dense_are_none() -> None:
    model = nn.Linear(64, 64).requires_grad_(False)
    model.weight[0, 1:] = 0
    (node,) = sc.explain(model, torch.randn(3, 64), formats=["csr"]).nodes
    assert node.reason == "no format that fits is smaller than dense"
    reason = {f.format: f.reason for f in node.findings}["outlier_columns"]
    assert reason == "takes 17,156 bytes, dense 16,384"


def test_lossy_decompositions_are_not_looked_for() -> None:
    class Lossy(OuterProduct):
        exact = False

    backend = Packing()
    backend.compiler.register(Lossy())
    model = nn.Linear(64, 64).requires_grad_(False)
    model.weight.copy_(Lossy().approximate(model.weight))
    check(model, torch.randn(3, 64), backend)
    found = [f.format for node in backend.compiler.report.nodes for f in node.findings]
    assert found
    assert "outer_product" not in found


@pytest.mark.parametrize("bias", [True, False])
def test_a_product(bias: bool) -> None:
    backend = Packing()
    model = nn.Linear(96, 64, bias=bias).requires_grad_(False)
    model.weight.copy_(OuterProduct().approximate(model.weight))
    fast = check(model, torch.randn(2, 3, 96), backend)
    nodes = backend.compiler.report.nodes
    text = "low_rank[1]: product(dense/float, dense/float)"
    assert {n.part: (n.shape, n.expression) for n in nodes} == {
        0: ((64, 1), text),
        1: ((1, 96), text),
    }
    assert backend.compiler.report.dense_bytes == 64 * 96 * 4
    with torch.no_grad():
        model.weight.mul_(4)
        close(fast(torch.ones(1, 3, 96)), model(torch.ones(1, 3, 96)))
        model.weight[1, 1] += 1
        close(fast(torch.ones(1, 3, 96)), model(torch.ones(1, 3, 96)))
    assert "of its norm off" in str(backend.compiler.report.misfits)


def test_parts_are_merged_with_parts() -> None:
    model, backend = Three(), Packing()
    check(model, torch.randn(3, 96), backend)
    merged = {(n.weight, n.part): n.merged_with for n in backend.compiler.report.nodes}
    assert merged == {
        ("q.weight", 0): ("k.weight",),
        ("k.weight", 0): ("q.weight",),
        ("q.weight", 1): ("k.weight",),
        ("k.weight", 1): ("q.weight",),
        ("v.weight", None): (),
    }


@torch.no_grad()
def test_weights_that_change(caplog: pytest.LogCaptureFixture) -> None:
    model, x, backend = Pair(), torch.randn(3, 96), Packing(passes=WITHOUT)
    fast = check(model, x, backend)
    caplog.set_level(logging.WARNING, "sparsecompile")

    def warnings() -> list[str]:
        found = [r.getMessage() for r in caplog.records if r.name == "sparsecompile"]
        caplog.clear()
        return found

    model.a.weight.mul_(-3)
    close(fast(x), model(x))
    model.a.weight = nn.Parameter(blocks_and_columns(64, 96).weight, False)
    close(fast(x), model(x))
    assert warnings() == []
    kept = model.a.weight.clone()
    model.a.weight.normal_()
    for _ in range(3):
        close(fast(x), model(x))
    (warning,) = warnings()
    assert "96 of 96 columns hold no zero, 1 to 3 are needed" in warning
    assert list(backend.compiler.report.misfits) == ["a.weight"]
    model.a.weight.copy_(kept)
    close(fast(x), model(x))
    assert warnings() == []


@torch.no_grad()
def test_a_graph_is_compiled_anew_for_other_zeros() -> None:
    model, x, backend = blocks_and_columns(64, 96), torch.randn(3, 96), Packing()
    fast = check(model, x, backend)
    model.weight.copy_(torch.randn(64, 96))
    model.weight.mul_(sc.NM(2, 4).prune(model.weight))
    close(fast(x), model(x))
    for _ in range(200):
        close(fast(x), model(x))
        if backend.compiler.report.graphs > 1:
            break
        time.sleep(0.01)
    assert "n_m[2:4]/float" in {node.format for node in backend.compiler.report.nodes}


@torch.no_grad()
def test_through_inductor_with_any_m() -> None:
    model = Pair()
    fast = torch.compile(model, backend="sparse", dynamic=True, options={"tune": "off"})
    for rows in (2, 3, 70):
        x = torch.randn(rows, 96)
        close(fast(x), model(x))
    model.b.weight.mul_(2)
    close(fast(x), model(x))
    model.b.weight.fill_(1)
    close(fast(x), model(x))


def test_gradients_pass_through_parts() -> None:
    model, backend, x = Pair(), Packing(passes=WITHOUT), torch.randn(3, 96, requires_grad=True)
    (want,) = torch.autograd.grad(model(x).square().sum(), x)
    (found,) = torch.autograd.grad(torch.compile(model, backend=backend)(x).square().sum(), x)
    torch.testing.assert_close(found, want)
    assert {n.expression for n in backend.compiler.report.nodes} == {SUM}


def test_pruned_weights_have_parts_too() -> None:
    model, x = blocks_and_columns(64, 96), torch.randn(3, 96)
    model.weight += 0.001
    (node,) = sc.explain(model, x, tune="off", prune="block(16,16,0.5)").nodes
    assert node.lossy == "prune block(16,16,0.5)"


def test_without_the_pass() -> None:
    options = {"passes": {"without": ["split_weights"]}}
    nodes = sc.explain(Pair(), torch.randn(3, 96), **options).nodes
    assert [(n.format, n.part) for n in nodes] == [("bitmap/float", None)] * 2


def test_a_second_run_changes_nothing() -> None:
    gm, inputs = captured(Pair(), torch.randn(3, 96))
    edit = apply_passes([SplitWeights()], gm, inputs)
    again = apply_passes([SplitWeights()], edit.module, inputs)
    assert str(again.module.graph) == str(edit.module.graph)
