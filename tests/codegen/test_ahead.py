"""Kernels with epilogues are built beside those that are measured, not after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.tuning import promising, timings
from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in this order: builds with epilogues, and measurements."""
    seen: list[str] = []

    def build(codegen: CppCodegen, spec: KernelSpec, *_: object) -> None:
        seen.append(f"{spec.format} {' '.join(spec.epilogue)}")

    def measure(contestants: Mapping[str, object], baseline: str) -> dict[str, Timing]:
        seen.append("measured")
        return {name: Timing(1.0 + (name == baseline), 0.0) for name in contestants}

    monkeypatch.setattr(timings, "TuningRecord", lambda: TuningRecord(Cache(tmp_path)))
    monkeypatch.setattr(timings, "measure", measure)
    monkeypatch.setattr(CppCodegen, "build", build)
    return seen


@pytest.fixture
def problems(registry: Registry) -> dict[Problem, Callable[[], Contents]]:
    """Two formats; one with two epilogues and without, the other only without."""
    torch.manual_seed(0)
    dense = torch.randn(32, 16, 4)
    dense[..., :2] = 0
    weight = dense.reshape(32, 64)
    found: dict[Problem, Callable[[], Contents]] = {}
    for name, epilogues in {"n_m[2:4]": ((), ("relu",), ("add",)), "bitmap": ((),)}.items():
        spec = KernelSpec(registry.format(name), torch.float32)
        problem = Problem(spec, (32, 64), (4,), False, DenseUse.ANYWHERE, "fast", 0.5)
        for epilogue in epilogues:
            with_epilogue = replace(problem, spec=replace(spec, epilogue=epilogue))
            found[with_epilogue] = lambda spec=spec: Contents(spec.format.pack(weight))  # type: ignore[misc]
    return found


def test_before_anything_is_measured(
    events: list[str],
    problems: dict[Problem, Callable[[], Contents]],
    shared_cache: Path,
    registry: Registry,
) -> None:
    found = CppCodegen().lower(problems, Target.host(), registry)
    kernels = {p.spec.epilogue: lowering.kernel for p, lowering in found.items()}
    assert all(isinstance(kernel, Kernel) for kernel in kernels.values())
    first = events.index("measured")
    assert set(events[:first]) == {"n_m[2:4]/float relu", "n_m[2:4]/float add"}
    # Nothing has an epilogue there.
    assert not any("bitmap" in event for event in events)


def test_nothing_is_built_for_what_is_in_the_record(
    events: list[str],
    problems: dict[Problem, Callable[[], Contents]],
    shared_cache: Path,
    registry: Registry,
) -> None:
    CppCodegen().lower(problems, Target.host(), registry)
    events.clear()
    CppCodegen().lower(problems, Target.host(), registry)
    assert events == []


@pytest.mark.parametrize("name", ["generic", "strips"])
def test_for_the_best_guess(
    name: str,
    events: list[str],
    problems: dict[Problem, Callable[[], Contents]],
    shared_cache: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[str] = []

    def best_first(spec: KernelSpec, variants: Sequence[Variant], *_: object) -> list[Variant]:
        return sorted(variants, key=lambda v: v.template.name != name)

    monkeypatch.setattr(promising, "promising", best_first)
    monkeypatch.setattr(
        CppCodegen, "build", lambda self, spec, packer, *_: built.append(packer.name)
    )
    (problem,) = (p for p in problems if p.spec.epilogue == ("relu",))
    CppCodegen().lower({problem: problems[problem]}, Target.host(), registry)
    assert built[0] == name
