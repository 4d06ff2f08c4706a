"""Contest: what is measured, and that it leaves no trace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from tuned import no_builds, no_kernel

import sparsecompile as sc
from sparsecompile.codegen.cpp import workbench
from sparsecompile.codegen.cpp.workbench import CppWorkbench
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.linear.operator import Linear


def test_random_numbers_are_those_without_a_tuner(
    model: nn.Linear, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    spec = KernelSpec(sc.default_registry().format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(model.weight)
    before = torch.get_rng_state()
    monkeypatch.setattr(workbench, "load_native", lambda: type("", (), {"evict": None}))
    problem = Problem(spec, packed.shape, (4,), False, DenseUse.ANYWHERE, "fast", 0.5)
    contest = Contest(
        Linear(), problem, Contents(packed), CppWorkbench(Target.host()), no_kernel, no_builds
    )
    contest.contestants(4, [])
    assert torch.equal(torch.get_rng_state(), before)


def test_dense_is_measured_as_it_would_run(
    model: nn.Linear, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    calls: list[str] = []

    class Copy(DenseCopy):
        name = "a copy"

        def make(self, weight: Tensor) -> Tensor:
            calls.append("make")
            return weight.view(-1).view(torch.uint8)

        @property
        def op(self) -> Any:
            def run(x: Tensor, copy: Tensor, bias: None, n: int) -> None:
                calls.append(f"{list(x.shape)} {copy.dtype} {bias} {n}")

            return run

    spec = KernelSpec(sc.default_registry().format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(model.weight)
    monkeypatch.setattr(workbench, "load_native", lambda: type("", (), {"evict": None}))
    problem = Problem(spec, packed.shape, (4,), False, DenseUse.ALONE, "fast", 0.5, Copy())
    contest = Contest(
        Linear(), problem, Contents(packed), CppWorkbench(Target.host()), no_kernel, no_builds
    )
    for _ in range(2):
        contestants, _ = contest.contestants(64, [])
        contestants["dense"].run()
    n, k = packed.shape
    assert calls == ["make", *[f"[64, {k}] torch.uint8 None {n}"] * 2]


@pytest.mark.parametrize(("rows", "evicted"), [(1, True), (8, True), (9, False)])
def test_few_rows_find_the_weight_in_memory(
    rows: int, evicted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[Tensor] = []
    monkeypatch.setattr(workbench, "load_native", lambda: SimpleNamespace(evict=gone.append))
    weight, bench = torch.empty(8), CppWorkbench(Target.host())
    contestant = bench.contestant(lambda: None, weight, rows)
    contestant.run()
    assert gone == []
    contestant.evict()
    assert [each is weight for each in gone] == [True] * evicted
    assert bench.is_cold(rows) is evicted
