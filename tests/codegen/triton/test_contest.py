"""Candidates on a GPU, made ready and timed: what does not run, and what is timed how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from fake_gpu import H100, SPEC
from libraries import Turned
from packing import sparse_
from torch import Tensor, nn
from tuned import no_builds, no_kernel

import sparsecompile as sc
from sparsecompile.codegen.triton import workbench as module
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.timer import GpuTimer
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.codegen.tuning.contest import Contest
from sparsecompile.codegen.tuning.measure import Contestant, measure
from sparsecompile.codegen.tuning.variant import functions_of
from sparsecompile.codegen.tuning.workbench import Guess, Workbench
from sparsecompile.errors import BuildError
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.operators.linear.operator import Linear

TIMES = {"dense": 3e-3, "tiles": 2e-3}


class Bench(Workbench):
    """A GPU without one: what is made ready is written down, and some of it does not run."""

    device = torch.device("cpu")
    failures = (RuntimeError,)

    def __init__(self) -> None:
        self.ready: list[Tensor] = []

    def facts(self) -> dict[str, object]:
        return {}

    def limits(self, *, measure: bool) -> Any:
        pytest.fail("a contest needs no cost model")

    def is_cold(self, rows: int) -> bool:
        return True

    def contestant(self, run: Callable[[], object], weight: Tensor, rows: int) -> Contestant:
        self.ready.append(weight)
        if len(self.ready) == 2:
            raise RuntimeError("no kernel image\nis available")
        return Contestant(run, lambda: None)

    def guess(self, problem: Problem, variants: Any, contents: Contents) -> Guess:
        pytest.fail("a contest does not guess")


def test_a_contest_goes_on_without_what_does_not_run() -> None:
    registry, extern, codegen = sc.default_registry(), Turned(), TritonCodegen()
    packed = pack(32, 64)
    variants = [
        codegen.variant(SPEC, extern, schedule, H100, registry)
        for schedule in extern.search(SPEC, H100)
    ]
    bench = Bench()
    problem = Problem(SPEC, packed.shape, (4,), False, DenseUse.ANYWHERE, "fast", 0.5)
    contest = Contest(
        Linear(), problem, Contents(packed), bench, codegen.builder(H100, registry), no_builds
    )
    found, failed = contest.contestants(4, functions_of(variants))
    assert list(found) == ["dense", "turned way=1", "turned way=2"]
    assert failed == {"turned way=0": "m=4: no kernel image is available"}
    # One layout, made once, for all schedules.
    assert torch.equal(bench.ready[0], packed.unpack())
    assert bench.ready[1] is bench.ready[2] is bench.ready[3]


def pack(n: int, k: int) -> Packed:
    return SPEC.format.pack(sparse_(nn.Linear(k, n)).weight.detach().half())


def test_a_baseline_that_does_not_run_is_an_error() -> None:
    bench, packed = Bench(), pack(8, 16)
    bench.ready.append(torch.empty(0))
    problem = Problem(SPEC, packed.shape, (4,), False, DenseUse.ANYWHERE, "fast", 0.5)
    with pytest.raises(RuntimeError, match="no kernel image"):
        Contest(Linear(), problem, Contents(packed), bench, no_kernel, no_builds).contestants(4, [])


class Timer(GpuTimer):
    """Calls take what they say."""

    def __init__(self, device: torch.device) -> None:
        self.done: list[str] = []

    def ready(self, run: Callable[[], object], *, replay: bool) -> Callable[[], object]:
        self.done.append("graph" if replay else "call")
        return run

    def evict(self) -> None:
        self.done.append("empty L2")

    def seconds(self, run: Callable[[], object]) -> float:
        self.done.append("run")
        return cast("float", run())


@pytest.mark.parametrize(("rows", "how"), [(1, "graph"), (16, "graph"), (17, "call")])
def test_calls_are_timed_by_events_with_l2_emptied_and_replayed_where_short(
    rows: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GpuTimer", Timer)
    bench = TritonWorkbench(H100, sc.default_registry())
    race = {n: bench.contestant(lambda s=s: s, torch.empty(0), rows) for n, s in TIMES.items()}
    timer: Any = bench._timer
    assert timer.done == [how, how]
    timer.done.clear()
    timings = measure(race, "dense")
    assert {name: t.seconds for name, t in timings.items()} == TIMES
    assert set(zip(timer.done[::2], timer.done[1::2], strict=True)) == {("empty L2", "run")}


def test_failures_of_triton_are_those_of_candidates() -> None:
    from triton.errors import TritonError

    bench = TritonWorkbench(H100, sc.default_registry())
    assert issubclass(TritonError, bench.failures)
    assert issubclass(torch.OutOfMemoryError, bench.failures)
    assert not issubclass(BuildError, bench.failures)
