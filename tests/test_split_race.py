"""`split_weights`: time decides where it is measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from packing import Packing
from split import SUM, blocks_and_columns, check, split_reasons
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
from sparsecompile.testing import apply_passes, captured

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
