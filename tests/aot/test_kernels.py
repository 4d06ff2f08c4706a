"""Kernels of the registry and of reports, looked at ahead of time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aot_kernels
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from sparsecompile.bench.aot import kernels as module
from sparsecompile.bench.aot.cases import (
    Case,
    parse_spec,
    registry_cases,
    report_cases,
)
from sparsecompile.bench.aot.kernels import analyse_kernels
from sparsecompile.codegen.triton.inspection import prune as pruning
from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.analysis import Analysis
from sparsecompile.codegen.triton.inspection.prune import prune_schedules
from sparsecompile.codegen.triton.inspection.specialization import Specialization
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.commands.app import app
from sparsecompile.compiler import Compiler
from sparsecompile.errors import BuildError
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import default_registry
from sparsecompile.report.facts import GraphReport, KernelChoice, NodeReport
from sparsecompile.report.model import Report

REGISTRY = default_registry()
TWO_OF_FOUR = REGISTRY.format("n_m[2:4]")
SM_90 = Target.parse("sm_90")


def case_of(name: str = "n_m[2:4]", dtype: torch.dtype = torch.float16) -> Case:
    (case,) = registry_cases(REGISTRY, SM_90, (dtype,), (REGISTRY.format(name),))
    return case


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions that would be compiled; all of them are found to be one kernel."""
    found = analyse(aot_kernels.matmul(), "sm_90")
    names: list[str] = []

    def look_up(what: Specialization, target: str) -> Analysis:
        names.append(what.name)
        return found

    monkeypatch.setattr(module, "analyse", look_up)
    return names


@pytest.mark.parametrize(
    "text",
    [
        "linear n_m[2:4]/float float16",
        "linear dense/int8[group=128] bfloat16 gelu mul activations=int8",
        "linear block[16x16]/float float32 add relu",
    ],
)
def test_specs_are_read_as_they_are_written(text: str) -> None:
    assert str(parse_spec(text, REGISTRY)) == text


def test_every_template_has_a_case() -> None:
    cases = list(registry_cases(REGISTRY, SM_90))
    templates = {t for t in REGISTRY.all(Template) if isinstance(t, TritonTemplate)}
    assert {case.template for case in cases} == templates
    assert len(set(cases)) == len(cases)
    assert {case.spec.dtype for case in cases} == {torch.float16}


def test_a_search_has_more_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of()
    (default,) = case.template.schedules(case.spec, SM_90)
    more = (default, Schedule.of({**dict(default.choices), "stages": 2}))
    monkeypatch.setattr(type(case.template), "search", lambda *_: more)
    found = registry_cases(REGISTRY, SM_90, formats=(TWO_OF_FOUR,), search=True)
    assert [c.schedule for c in found] == list(more)


def test_cases_of_a_report() -> None:
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).half()
    compiler = Compiler(target="sm_90", tune="off", prune="2:4")
    report = compiler.explain(model, torch.randn(4, 256).half())
    assert all(node.packed for node in report.nodes)
    first, second = report_cases(report, compiler.registry)
    assert str(first.spec) == "linear n_m[2:4]/float float16 relu"
    assert first.shape == (512, 256)
    assert second.shape == (256, 512)
    assert {c.target for c in (first, second)} == {SM_90}
    assert first.schedule in first.template.schedules(first.spec, SM_90)


def test_a_report_for_cpus_has_none() -> None:
    chosen = KernelChoice("linear n_m[2:4]/float float16", "generic", "batch_lanes=64", "")
    nodes = (NodeReport(0, "packed", "a", kernel=chosen), NodeReport(0, "dense", "b"))
    report = Report("cpu x86_64 avx512", (GraphReport("", "", (), nodes),))
    assert list(report_cases(report, REGISTRY)) == []


def test_every_function_of_a_case(analysed: list[str]) -> None:
    case = case_of()
    started: list[Case] = []
    found = list(analyse_kernels([case], REGISTRY, started.append))
    assert started == [case]
    assert [kernel.launch for kernel in found] == list(case.launches)
    assert analysed == [launch.function for launch in case.launches]
    assert [b.rows for kernel in found for b in kernel.bounds] == [1, 16, 64, 256, 1024]
    # Half the values and four bits for four of them: 9/16 of the bytes.
    assert found[0].bounds[0].speedup == pytest.approx(16 / 9, rel=5e-3)
    assert all(kernel.faults == () for kernel in found)


def test_what_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: Specialization, target: str) -> Analysis:
        raise BuildError("cannot compile", Path(what.file), "out of\nluck")

    monkeypatch.setattr(module, "analyse", refuse)
    (first, *_) = analyse_kernels([case_of()], REGISTRY)
    assert first.analysis is None
    assert first.faults == ("does not compile: out of luck",)
    assert first.to_dict()["analysis"] is None


def test_a_tool_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: Specialization, target: str) -> Analysis:
        raise BuildError("there is no nvdisasm")

    monkeypatch.setattr(module, "analyse", refuse)
    with pytest.raises(BuildError, match="no nvdisasm"):
        list(analyse_kernels([case_of()], REGISTRY))


def test_schedules_at_fault_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of()
    good = case.schedule
    wide = Schedule.of({**dict(good.choices), "few_m": 256})
    found = {"good": analyse(aot_kernels.matmul(), "sm_90"), "bad": spilling_on_sm_90()}

    def look_up(what: Specialization, target: str) -> Analysis:
        return found["bad" if what.constants["BLOCK_M"] == 256 else "good"]

    monkeypatch.setattr(pruning, "analyse", look_up)
    left = prune_schedules(case.spec, case.template, (good, wide), SM_90, REGISTRY)
    symbols = [launch.symbol for launch in case.launches]
    rest = [(wide, symbol) for symbol in symbols if symbol != "few"]
    assert list(left.kept) == [*((good, symbol) for symbol in symbols), *rest]
    assert left.dropped == {(wide, "few"): f"linear on sm_90: {found['bad'].faults[0]}"}


def spilling_on_sm_90() -> Analysis:
    return analyse(aot_kernels.spilling(), "sm_90")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of()
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BuildError, match="pip install triton"):
        list(analyse_kernels([case], REGISTRY))
    with pytest.raises(BuildError, match="pip install triton"):
        prune_schedules(case.spec, case.template, (case.schedule,), SM_90, REGISTRY)
    result = run("aot", "--target", "sm_90", "--format", "n_m[2:4]")
    assert result.exit_code == 1
    assert "error: Triton is not installed" in result.stderr
    assert "pip install triton" in result.stderr


def test_under_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(BuildError, match="TRITON_INTERPRET is set, so Triton compiles nothing"):
        list(analyse_kernels([case_of()], REGISTRY))


def test_command_prints_a_table(analysed: list[str]) -> None:
    result = run("aot", "--target", "sm_90", "--format", "n_m[2:4]")
    assert result.exit_code == 0, result.output
    head, *rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert head.startswith("kernel target m regs stack spills shared matrix")
    assert rows[0].startswith("n_m[2:4]/float float16 tiles sm_90 row 1 ")
    assert "4 HGMMA.64x16x16.F32" in rows[0]
    assert "5x128a" in rows[0]
    assert "of warps, shared memory" in rows[0]
    assert rows[0].endswith("m=1 1.78")
    assert len(rows) == len(case_of().launches)


def test_command_prints_formats_with_their_parameters(analysed: list[str]) -> None:
    name = "dense/int4[group=32,scales=float32]"
    result = run("aot", "--target", "sm_90", "--format", f"{name},csr")
    assert result.exit_code == 0, result.output
    # The end is on the next line.
    assert f"\n{name[:24]}" in result.stdout


def test_command_prints_json(analysed: list[str]) -> None:
    result = run("aot", "--target", "sm_90,gfx942", "--format", "n_m[2:4]", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == 1
    assert {kernel["target"] for kernel in found["kernels"]} == {"sm_90", "gfx942"}
    first = found["kernels"][0]
    assert first["spec"] == "linear n_m[2:4]/float float16"
    assert first["device"] == "H100 SXM"
    assert first["analysis"]["loops"][0]["loads"][0]["text"].startswith("weight = tl.load(")
    assert first["bounds"][0]["limiter"] == "memory"


def test_command_checks(analysed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("aot", "--target", "sm_90", "--format", "n_m[2:4]", "--check")
    assert run(*words).exit_code == 0
    spilling = spilling_on_sm_90()
    monkeypatch.setattr(module, "analyse", lambda what, target: spilling)
    result = run(*words)
    assert result.exit_code == 1
    assert "sm_90 linear n_m[2:4]/float float16 tiles row (" in result.stdout
    assert "spills" in result.stdout.splitlines()[-1]


def test_command_of_a_model(analysed: list[str], tmp_path: Path) -> None:
    path = tmp_path / "demo.py"
    path.write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Linear(256, 512).half(), (torch.randn(4, 256).half(),)\n",
        encoding="utf-8",
    )
    result = run("aot", f"{path}:make", "--target", "sm_90", "--prune", "2:4")
    assert result.exit_code == 0, result.output
    assert "n_m[2:4]/float float16 tiles" in result.stdout
    result = run("aot", f"{path}:make", "--target", "sm_90")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("no Triton kernel: everything stays dense")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "sm_75"), "nothing can be compiled for 'sm_75'; known: sm_80"),
        (("--dtype", "int3"), "--dtype 'int3' is none of float16, bfloat16, float32"),
        (("--format", "nothing"), "no structure is called 'nothing'"),
    ],
)
def test_command_refuses(words: tuple[str, ...], said: str) -> None:
    result = run("aot", *words)
    assert result.exit_code == 1
    assert said in result.stderr


def test_specs_differ_by_what_they_compute() -> None:
    plain = case_of().spec
    assert parse_spec(str(plain), REGISTRY) == plain
    assert parse_spec(f"{plain} silu", REGISTRY) == KernelSpec(plain.format, plain.dtype, ("silu",))
