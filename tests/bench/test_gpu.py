"""`bench gpu`, as far as it goes without a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sparsecompile.bench.aot.cases import registry_cases
from sparsecompile.bench.cases import linear_cases
from sparsecompile.bench.gpu.command import COLUMNS
from sparsecompile.bench.gpu.contestants import DENSE, Subject, contestants
from sparsecompile.bench.gpu.correctness import correctness_cases
from sparsecompile.bench.gpu.linear import GpuRow, bench_gpu
from sparsecompile.bench.gpu.timed import timed
from sparsecompile.bench.results import results_csv, results_json, results_table
from sparsecompile.codegen.triton.timer import REPLAYED_ROWS, GpuTimer
from sparsecompile.commands.app import app
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry

pytest.importorskip("triton")
REGISTRY = default_registry()
CPU = torch.device("cpu")


class Steps(GpuTimer):
    """Every call takes a millisecond more than the one before it."""

    def __init__(self) -> None:
        self.calls = self.evicted = 0
        self.replayed: list[bool] = []

    def ready(self, run: Callable[[], object], *, replay: bool) -> Callable[[], object]:
        self.replayed.append(replay)
        return run

    def evict(self) -> None:
        self.evicted += 1

    def seconds(self, run: Callable[[], object]) -> float:
        run()
        self.calls += 1
        return self.calls * 1e-3


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ("bench", "gpu", *words))


def measured(m: int = 4) -> tuple[list[GpuRow], Steps]:
    timer = Steps()
    rows = bench_gpu(
        linear_cases("64x128", str(m), "float16", "2:4"),
        Target.parse("sm_80"),
        REGISTRY,
        timer,
        device=CPU,
        name="a GPU",
        codecs=("float",),
        rounds=3,
    )
    return rows, timer


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "no GPU: torch finds none on this machine, so nothing was checked or measured\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shape", "64"), "--shape '64' is no shape"),
        (("--codec", "int3"), "no codec is called 'int3'"),
        (("--format", "3"), "cannot prune to '3'"),
        (("--json", "/nowhere/x.json"), "there is no folder /nowhere"),
    ],
)
def test_refusals(words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arch", "recipe", "names"),
    [
        ("sm_80", "2:4", [DENSE, "cusparselt", "cutlass", "n_m[2:4]/float tiles"]),
        ("sm_90", "2:4", [DENSE, "cusparselt", "n_m[2:4]/float tiles"]),
        ("gfx942", "2:4", [DENSE, "n_m[2:4]/float tiles"]),
        ("sm_80", "block(16,16,0.5)", [DENSE, "block[16x16]/float blocks"]),
    ],
)
def test_who_takes_part(
    arch: str, recipe: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = linear_cases("64x64", "1", "float16", recipe)
    subject = Subject.of(case, CPU)
    found = contestants(subject, Target.parse(arch), REGISTRY, ("float",))
    assert [contestant.name for contestant in found] == names


def test_rows(cache_folder: Path) -> None:
    rows, timer = measured()
    assert timer.replayed == [True]
    dense, *others = rows
    assert dense.candidate == DENSE
    assert dense.ms == pytest.approx(2)
    assert dense.mad == pytest.approx(1)
    assert dense.samples == 3
    assert dense.speedup == 1
    assert dense.error < 1e-2
    assert dense.weight_bytes == 64 * 128 * 2
    assert dense.arch == "sm_80"
    assert dense.machine == "a GPU"
    assert dense.bandwidth_share == pytest.approx(64 * 128 * 2 / 2e-3 / 2.039e12)
    # There is no GPU: what needs one says so in its row.
    assert {row.candidate for row in others} == {"cusparselt", "cutlass", "n_m[2:4]/float tiles"}
    for row in others:
        assert row.note.startswith("failed: ")
        assert math.isnan(row.ms)
        assert math.isnan(row.speedup)


def test_many_rows_are_not_replayed(cache_folder: Path) -> None:
    _, timer = measured(m=64)
    assert timer.replayed == [False]


def test_every_template_is_checked_with_every_format_and_every_schedule() -> None:
    target, dtypes = Target.parse("sm_90"), (torch.float16, torch.float32)
    cases = list(correctness_cases(REGISTRY, target, dtypes))
    every = list(registry_cases(REGISTRY, target, dtypes))
    defaults = [case for case in every if isinstance(case.spec, KernelSpec)]
    assert len(defaults) < len(every)
    assert set(defaults) < set(cases)
    assert len(cases) == 2 * len(defaults)
    for case in registry_cases(REGISTRY, target, dtypes, search=True):
        if isinstance(case.spec, KernelSpec):
            assert (case.template, case.schedule) in {(c.template, c.schedule) for c in cases}


def test_rows_are_a_table_json_and_csv(cache_folder: Path) -> None:
    rows, _ = measured()
    gpu = Target.parse("sm_80").gpu
    assert '"model": "A100 SXM 80GB"' in results_json("gpu", rows, gpu)
    assert len(results_csv(rows).splitlines()) == 1 + len(rows)
    table = results_table("gpu", rows, COLUMNS, group="case")
    assert table.row_count == len(rows)


def test_contestants_take_turns() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    timer = Steps()
    found = timed(runs, timer, 2)
    assert timer.evicted == timer.calls == 4
    assert order == ["a", "b", "a", "b"]
    assert found["a"].seconds == pytest.approx(2e-3)
    assert found["b"].seconds == pytest.approx(3e-3)


class FakeCuda:
    """Writes down what it is asked to do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        cuda = self

        class Event:
            def record(self) -> None:
                cuda.done.append("record")

            def synchronize(self) -> None:
                cuda.done.append("wait")

            def elapsed_time(self, other: object) -> float:
                return 3.0

        return Event()


def test_l2_is_emptied_before_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch.cuda, "Event", cuda.event)
    timer = GpuTimer.__new__(GpuTimer)

    class Other:
        def zero_(self) -> None:
            cuda.done.append("empty")

    timer._other = Other()
    (found,) = timed({"a": lambda: cuda.done.append("run")}, timer, 1).values()
    assert found.seconds == 3e-3
    assert cuda.done == ["empty", "record", "run", "record", "wait"]
    assert REPLAYED_ROWS == 16
