"""The schedules of a full search, and what is dropped of them before anything is measured."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from packing import sparse_
from torch import nn
from triton_cases import TEMPLATES

import sparsecompile as sc
from sparsecompile.codegen.triton.inspection import prune
from sparsecompile.codegen.triton.inspection.specialization import Specialization
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.tuner import Decision, Tuner
from sparsecompile.codegen.tuning.variant import functions_of
from sparsecompile.errors import BuildError
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target

REGISTRY = sc.default_registry()
FORMATS = {"tiles": "n_m[2:4]", "scattered": "bitmap", "blocks": "block[32x32]", "rows": "csr"}


def spec_of(template: TritonLinear, dtype: torch.dtype = torch.float16) -> KernelSpec:
    return KernelSpec(REGISTRY.format(FORMATS[template.name]), dtype)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_schedules_differ_and_can_be_launched(
    template: TritonLinear, arch: str, dtype: torch.dtype
) -> None:
    spec, target = spec_of(template, dtype), Target.parse(arch)
    default, *others = template.search(spec, target)
    assert (default,) == tuple(template.schedules(spec, target))
    assert len(others) >= 4
    assert len({default, *others}) == 1 + len(others)
    first = template.launches(spec, default)
    for schedule in others:
        assert dict(schedule.choices).keys() == dict(default.choices).keys()
        launches = template.launches(spec, schedule)
        ranges = [(launch.symbol, launch.largest_m) for launch in launches]
        assert ranges == [(launch.symbol, launch.largest_m) for launch in first]
        for launch in launches:
            sizes = (launch.block_n, launch.block_m, launch.warps)
            assert all(size > 0 and size & (size - 1) == 0 for size in sizes)
            assert launch.warps * target.gpu.warp_size <= 1024
            assert launch.stages >= 1


class Found:
    """What is wrong with a kernel."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults


def searched(name: str = "n_m[2:4]") -> tuple[Problem, list[Any], TritonWorkbench]:
    target = Target.parse("sm_90")
    spec = KernelSpec(REGISTRY.format(name), torch.float16)
    problem = Problem(spec, (256, 512), (1,), False, DenseUse.ANYWHERE, "full", 0.5)
    functions = functions_of(TritonCodegen().searched(spec, target, REGISTRY))
    return problem, functions, TritonWorkbench(target, REGISTRY)


def test_functions_that_spill_or_miss_the_matrix_units_are_dropped(
    monkeypatch: pytest.MonkeyPatch, shared_cache: object
) -> None:
    def look(kernel: Specialization, arch: str) -> Found:
        assert arch == "sm_90"
        if kernel.constants["BLOCK_N"] == 256:
            return Found("24 spills, 96 bytes of local memory a thread (255 registers)")
        if kernel.options["num_warps"] == 2 and kernel.name == "linear":
            return Found("a product of f16 without matrix instructions")
        return Found()

    monkeypatch.setattr(prune, "analyse", look)
    problem, functions, bench = searched()
    dropped = bench.faults(problem, functions)
    wide = [f.name for f in functions if f.symbol == "many" and "many_n=256" in f.name]
    narrow = [f.name for f in functions if f.symbol == "few" and "few_warps=2" in f.name]
    assert dropped == {
        **dict.fromkeys(
            wide, "linear on sm_90: 24 spills, 96 bytes of local memory a thread (255 registers)"
        ),
        **dict.fromkeys(narrow, "linear on sm_90: a product of f16 without matrix instructions"),
    }
    assert len(wide) == len(narrow) == 1
    # Only what is asked about: a library call is nothing to look at.
    assert bench.faults(problem, [f for f in functions if f.name not in dropped]) == {}


def test_what_does_not_compile_is_dropped(
    monkeypatch: pytest.MonkeyPatch, shared_cache: object
) -> None:
    def look(kernel: Specialization, arch: str) -> Found:
        raise BuildError("no", source=sc.__file__, stderr="out of\nluck")  # type: ignore[arg-type]

    monkeypatch.setattr(prune, "analyse", look)
    problem, functions, bench = searched("csr")
    dropped = bench.faults(problem, functions)
    assert set(dropped.values()) == {"linear on sm_90: does not compile: out of luck"}
    assert dropped.keys() == {f.name for f in functions}


def test_a_tool_that_is_missing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, shared_cache: object
) -> None:
    def look(kernel: Specialization, arch: str) -> Found:
        raise BuildError("there is no nvdisasm")

    monkeypatch.setattr(prune, "analyse", look)
    problem, functions, bench = searched("csr")
    with pytest.raises(BuildError, match="there is no nvdisasm"):
        bench.faults(problem, functions)


def test_without_triton_nothing_is_pruned_but_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    problem, functions, bench = searched("csr")
    with pytest.raises(BuildError, match="pip install triton"):
        bench.faults(problem, functions)


def test_reports_say_what_was_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def decide(tuner: Tuner) -> Decision:
        guess = decided(tuner)
        left_out = tuple((f"tiles stages={i} few", "24 spills") for i in (2, 3))
        return Decision(guess.variants, guess.ranges, (), "measured", left_out)

    decided = Tuner.decide
    monkeypatch.setattr(Tuner, "decide", decide)
    model = sparse_(nn.Linear(64, 32)).half().requires_grad_(False)
    report = sc.explain(model, torch.randn(4, 64).half(), target="sm_90")
    assert str(report).endswith(
        "chosen: measured\n  n_m[2:4] fp16 32x64 not measured: 2, such as tiles few, 24 spills"
    )
    (node,) = json.loads(report.to_json())["nodes"]
    assert node["dropped"] == [[f"tiles stages={i} few", "24 spills"] for i in (2, 3)]
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>not measured<td>tiles stages=") == 2
