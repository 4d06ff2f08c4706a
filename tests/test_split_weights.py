"""`split_weights`: which weights are taken apart, and what graphs make of them."""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from factors import OuterProduct
from packing import Packing, close, sparse_
from split import Pair, Three, blocks_and_columns
from torch import Tensor, nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.errors import BuildError
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.kernel import Lowering
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.trial import Trial
from sparsecompile.passes import split_weights
from sparsecompile.passes.split_weights import SplitWeights
from sparsecompile.testing import apply_passes, assert_no_worse, captured

SUM = "outlier_columns: sum(block[16x16]/float, block[4x1]/float)"


def check(model: nn.Module, x: Tensor, backend: Packing, **options: Any) -> Any:
    """As exact as eager, compiled."""
    fast = torch.compile(model, backend=backend, **options)
    with torch.no_grad():
        found, eager = fast(x), model(x)
        assert_no_worse(found, eager, copy.deepcopy(model).double()(x.double()))
    return fast


def split_reasons(backend: Packing) -> list[str]:
    graphs = backend.compiler.report.graph_reports
    return [r.reason for g in graphs for r in g.rewrites if r.pass_name == "split_weights"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [(), (1,), (3, 5), (40,)])
def test_a_sum(rows: tuple[int, ...], dtype: torch.dtype) -> None:
    model, backend = Pair().to(dtype), Packing()
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
    after = backend.compiler.report.after
    assert after.count("sparsecompile.linear.default") == 4
    assert " part(" not in after


def test_the_report(tmp_path: Path) -> None:
    report = sc.explain(Pair(), torch.randn(3, 96), tune="off")
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
    model, x, backend = Pair(), torch.randn(3, 96), Packing()
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
    model.a.weight.fill_(0.5)
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
    model, backend, x = Pair(), Packing(), torch.randn(3, 96, requires_grad=True)
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


Times = Callable[[str, int], float]


def split_by(
    seconds: Times, patch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, **compile: Any
) -> tuple[bool, str]:
    """Whether a weight is split where linears take so long, by format and m; if not, why."""

    def lower(device: Device, problems: Mapping[Problem, object]) -> dict[Problem, Lowering]:
        return {p: Lowering(None, trials(p), "made up") for p in problems}

    def trials(problem: Problem) -> tuple[Trial, ...]:
        name = str(problem.spec.format)
        times = [(m, seconds(name, m)) for m in problem.rows]
        return tuple(Trial(m, "strips decode", t, 0.01, 1, True) for m, t in times if t)

    patch.setattr(Device, "lower", lower)
    gm, inputs = captured(model, x)
    edit = apply_passes([SplitWeights("fast")], gm, inputs)
    (rewrite,) = edit.rewrites
    return not rewrite.reason, rewrite.reason


def times(bitmap: float, part: float, many: float = 0.0) -> Times:
    """Of the whole weight, of each part, and of each part where m is 512, if that is given."""

    def seconds(name: str, m: int) -> float:
        return bitmap if name == "bitmap/float" else (many or part) if m == 512 else part

    return seconds


NAME = SUM.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[")
CASES = [
    (times(0.5, 0.2), ""),
    (times(0.4, 0.2), f"{NAME} is no faster: m=3 420 ms, strips decode 400 ms"),
    (times(0.5, 0.0), ""),
    (times(0.0, 0.2), ""),
]


@pytest.mark.parametrize(("seconds", "reason"), CASES)
def test_time_decides_where_it_is_measured(
    seconds: Times, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it is not, bytes."""
    model = blocks_and_columns(256, 512)
    is_split, why = split_by(seconds, monkeypatch, model, torch.randn(3, 512))
    assert is_split == (not reason)
    assert re.fullmatch(reason, why)


@pytest.mark.parametrize(("many", "is_split"), [(0.2, True), (0.3, False)])
def test_parts_have_to_be_faster_at_any_m_that_may_come(
    many: float, is_split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(7, 512)
    torch._dynamo.mark_dynamic(x, 0)
    found, why = split_by(times(0.5, 0.2, many), monkeypatch, blocks_and_columns(256, 512), x)
    assert found == is_split
    assert is_split or "m=512 620 ms" in why


def test_parts_that_are_faster_may_take_more_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2:4 with dense columns, whose bitmap is the smallest."""
    model, x = blocks_and_columns(256, 512, sc.NM(2, 4)), torch.randn(3, 512)

    def seconds(name: str, m: int) -> float:
        return next(whole) if name == "bitmap/float" else 0.2

    for times, expected in (((0.2, 0.5), True), ((0.3, 0.4), False)):
        whole = iter(times)
        assert split_by(seconds, monkeypatch, model, x)[0] == expected
        torch._dynamo.reset()


def test_without_a_compiler_bytes_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BuildError("no compiler")

    monkeypatch.setattr(Device, "lower", fail)
    gm, inputs = captured(blocks_and_columns(256, 512), torch.randn(3, 512))
    assert [r.reason for r in apply_passes([SplitWeights("fast")], gm, inputs).rewrites] == [""]


def test_a_weight_that_is_too_small_is_not_split() -> None:
    model, backend = nn.Linear(32, 4).requires_grad_(False), Packing(tune="fast")
    model.weight[:, 6:] = model.weight[::2, :5] = 0
    check(model, torch.randn(1, 32), backend)
    (reason,) = split_reasons(backend)
    assert "128 values: nothing to gain" in reason


def test_parts_never_run_dense(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they compete with is the whole weight, which they have beaten by then."""
    monkeypatch.setattr(split_weights, "is_faster", lambda *_: True)
    tuned.dense_wins()
    backend = Packing(tune="fast")
    check(blocks_and_columns(256, 512), torch.randn(3, 512), backend)
    assert [(n.part, n.packed) for n in backend.compiler.report.nodes] == [(0, True), (1, True)]


def test_the_tuner_measures_parts(tuned: Tuned) -> None:
    """Two of them take as long as one alone when everything takes the same: that is kept."""
    backend = Packing(tune="fast")
    check(blocks_and_columns(256, 512), torch.randn(3, 512), backend)
    assert "dense" in tuned.measured[0][1]
    (node,) = backend.compiler.report.nodes
    assert node.part is None
    assert "is no faster: m=3 " in split_reasons(backend)[0]
