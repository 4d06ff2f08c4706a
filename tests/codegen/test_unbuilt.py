"""A candidate whose source cannot be built: it is left out and named, the others compete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packing import sparse_
from torch import nn
from tuned import Tuned, no_builds

import sparsecompile as sc
from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.workbench import CppWorkbench
from sparsecompile.codegen.tuning import timings
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.codegen.tuning.promising import Candidates
from sparsecompile.codegen.tuning.timings import Timings
from sparsecompile.codegen.tuning.tuner import Tuner
from sparsecompile.codegen.tuning.variant import Function, Variant, functions_of
from sparsecompile.errors import BuildError
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.linear.operator import Linear
from sparsecompile.registry import Registry

SHAPE = (32, 64)


class Broken(GenericLinear):
    """A template that generates nonsense."""

    name = "broken"
    relative_rate = 1.0


def variant(registry: Registry, spec: KernelSpec) -> Variant:
    template, target = Broken(), Target.host()
    schedule = template.schedules(spec, target)[0]
    source = template.render(spec, schedule, target, registry)
    return Variant(template, schedule, replace(source, name="broken", text="nonsense\n"))


def problem(spec: KernelSpec) -> Problem:
    return Problem(spec, SHAPE, (1,), False, DenseUse.ANYWHERE, "fast", 0.5)


@pytest.mark.parametrize("alone", [False, True])
def test_the_others_are_measured(
    alone: bool,
    shared_cache: Path,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = TuningRecord(Cache(tmp_path))
    monkeypatch.setattr(timings, "TuningRecord", lambda: record)
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    weight = sparse_(nn.Linear(64, 32)).weight.detach()
    codegen, target = CppCodegen(), Target.host()
    good = [] if alone else codegen.variants(spec, target, registry)
    broken = variant(registry, spec)
    candidates = Candidates(
        Linear(),
        problem(spec),
        [broken, *good],
        [],
        lambda: Contents(spec.format.pack(weight)),
        codegen.workbench(target, registry),
    )
    measured = Timings(candidates, codegen.builder(target, registry), no_builds)
    decision = Tuner(candidates, measured).decide()
    names = [f.name for f in functions_of([broken])]
    assert [name for name, _ in decision.dropped] == sorted(names)
    for _, why in decision.dropped:
        assert "C++ compiler failed" in why
        assert "environment variable CXX: " in why
        assert "error: " in why
    assert not any("dropped" in entry for entry in record.entries())
    assert {t.candidate.split()[0] for t in decision.trials}.isdisjoint({"broken"})
    # Under `strict` that is a failure, and dense by choice is none.
    assert decision.is_choice == (not alone)
    if alone:
        assert decision.variants == ()
        assert decision.reason.startswith("could not be measured (broken")
    else:
        assert decision.reason.startswith("measured")


def test_a_compiler_that_is_missing_is_no_fault_of_a_candidate(registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(sparse_(nn.Linear(64, 32)).weight.detach())

    def build(*_: object) -> Kernel:
        raise BuildError("no C++ compiler was found")

    codegen = CppCodegen()
    bench = codegen.workbench(Target.host(), registry)
    contest = Contest(Linear(), problem(spec), Contents(packed), bench, build, no_builds)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler was found"):
        contest.build(functions_of([variant(registry, spec)]))


def test_without_a_compiler_those_in_the_cache_compete(registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(sparse_(nn.Linear(64, 32)).weight.detach())
    codegen, target = CppCodegen(), Target.host()
    there, *_ = codegen.variants(spec, target, registry)
    absent = variant(registry, spec)

    def build(spec: KernelSpec, variants: tuple[Variant, ...], *_: object) -> None:
        if absent in variants:
            raise BuildError("no C++ compiler was found")

    bench = codegen.workbench(target, registry)
    contest = Contest(Linear(), problem(spec), Contents(packed), bench, build, no_builds)  # type: ignore[arg-type]
    why = contest.build(functions_of([absent, there]))
    assert why == {f.name: "no C++ compiler was found" for f in functions_of([absent])}


def test_a_variant_that_cannot_be_built_with_an_epilogue_is_left_out(registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(sparse_(nn.Linear(64, 32)).weight.detach())

    def ahead(variant: Variant) -> Sequence[Callable[[], Kernel]]:
        def build() -> Kernel:
            raise BuildError("it failed", Path("a.cpp"), "In a file\na.cpp:1: error: what\nmore")

        return [build]

    bench = CppCodegen().workbench(Target.host(), registry)
    contest = Contest(Linear(), problem(spec), Contents(packed), bench, lambda *_: None, ahead)  # type: ignore[arg-type,return-value]
    functions = functions_of([variant(registry, spec)])
    why = "it failed: a.cpp:1: error: what"
    assert contest.build(functions) == {f.name: why for f in functions}


def test_without_a_compiler_those_whose_epilogues_are_missing_do_not_compete(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    packed = spec.format.pack(sparse_(nn.Linear(64, 32)).weight.detach())
    codegen, target = CppCodegen(), Target.host()
    there, *_ = codegen.variants(spec, target, registry)
    other = variant(registry, spec)

    def ahead(variant: Variant) -> Sequence[Callable[[], Kernel]]:
        def build() -> Kernel:
            raise BuildError("no C++ compiler was found")

        return [build] if variant is other else []

    bench = codegen.workbench(target, registry)
    contest = Contest(Linear(), problem(spec), Contents(packed), bench, lambda *_: None, ahead)  # type: ignore[arg-type,return-value]
    functions = functions_of([there, other])
    assert bench.builds
    assert contest.build(functions) == {}
    monkeypatch.setattr(CppWorkbench, "builds", False)
    why = contest.build(functions)
    assert why == {f.name: "no C++ compiler was found" for f in functions_of([other])}


def test_it_is_tried_again_at_every_start_and_only_then_measured(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sparse_(nn.Linear(64, 32)).requires_grad_(False)
    tuned.dense_wins()
    tried: list[str] = []
    bad = ["decode"]

    def build(contest: Contest, functions: Sequence[Function]) -> dict[str, str]:
        names = [f.name for f in functions]
        tried.extend(names)
        return {name: "nonsense" for name in names if name.split("_")[-1] in bad}

    monkeypatch.setattr(Contest, "build", build)

    def explain() -> sc.NodeReport:
        tried.clear()
        tuned.measured.clear()
        (node,) = sc.explain(model, torch.randn(4, 64), tune="fast").nodes
        return node

    first = explain()
    assert tried
    assert tuned.rows == [4]
    assert {why for _, why in first.dropped} == {"nonsense"}
    again = explain()
    assert tried
    assert tuned.measured == []
    assert again.dropped
    bad.clear()
    # What serves few rows only is missing at few rows only.
    assert explain().dropped == ()
    assert tuned.rows == [4]
