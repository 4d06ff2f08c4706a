"""`bench gpu`: linears on a GPU, packed and dense, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.bench.cases import LinearCase
from sparsecompile.bench.environment import Environment
from sparsecompile.bench.gpu.contestants import DENSE, Run, Subject, contestants
from sparsecompile.bench.gpu.failures import failures
from sparsecompile.bench.gpu.timed import timed
from sparsecompile.bench.timing import Timing
from sparsecompile.codegen.triton.timer import REPLAYED_ROWS, GpuTimer
from sparsecompile.kernels.gpu import GPU
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

CHECKED_ROWS = 8
"""So many rows of a result are held against float64."""


@dataclass(frozen=True)
class GpuRow(Environment):
    """One contestant of one case.

    Attributes:
        arch: architecture of the GPU, such as `sm_90`.
        triton: version of Triton.
        runtime: version of CUDA or HIP that torch was built for.
        case: `str(LinearCase)`.
        candidate: `cuBLAS`, `cusparselt`, `cutlass`, `torchao int4`, or format and template.
        ms: milliseconds a call by the GPU's events: median of interleaved samples; NaN where it
            failed.
        mad: median absolute deviation of the samples, in milliseconds.
        samples: samples that counted.
        replayed: whether the call was replayed as a CUDA graph.
        speedup: time of cuBLAS over this one's.
        error: largest error against float64 on the weight that it multiplies with, as a share of
            the largest value.
        weight_bytes: that a call reads of the weight.
        bandwidth_share: of that a second in the bandwidth of the data sheet.
        note: what failed, else empty.
    """

    arch: str
    triton: str
    runtime: str
    case: str
    candidate: str
    ms: float
    mad: float
    samples: int
    replayed: bool
    speedup: float
    error: float
    weight_bytes: int
    bandwidth_share: float
    note: str


def bench_gpu(
    cases: Iterable[LinearCase],
    target: Target,
    registry: Registry,
    timer: GpuTimer,
    *,
    device: torch.device,
    name: str,
    codecs: Sequence[str],
    rounds: int = 30,
    started: Callable[[LinearCase], None] = lambda case: None,
) -> list[GpuRow]:
    """Time all contestants of all cases; what fails is a row that says so.

    Args:
        cases: what to time.
        target: the GPU's architecture.
        registry: where templates and library calls are.
        timer: of the GPU.
        device: the GPU.
        name: its name.
        codecs: of the packed formats.
        rounds: samples of each contestant.
        started: is told of each case before it begins.

    Raises:
        OptionError: a format cannot be pruned to.
    """
    rows: list[GpuRow] = []
    for case in cases:
        started(case)
        torch._dynamo.reset()
        subject = Subject.of(case, device)
        runs: dict[str, Run] = {}
        facts: dict[str, tuple[int, float]] = {}
        notes: dict[str, str] = {}
        with torch.no_grad():
            for contestant in contestants(subject, target, registry, codecs):
                try:
                    run, nbytes, weight = contestant.make()
                    facts[contestant.name] = nbytes, _error(subject, run(), weight)
                    runs[contestant.name] = run
                except failures() as error:
                    notes[contestant.name] = " ".join(str(error).split())[:200] or repr(error)
            replayed = case.m <= REPLAYED_ROWS
            ready = {n: timer.ready(run, replay=replayed) for n, run in runs.items()}
            times = timed(ready, timer, rounds)
        here = _Here(Environment.here(name), target, case)
        rows += [here.row(n, times, facts[n], replayed) for n in times]
        rows += [here.failed(n, note) for n, note in notes.items()]
    return rows


@dataclass(frozen=True)
class _Here:
    """What the rows of one case have in common."""

    environment: Environment
    target: Target
    case: LinearCase

    def row(
        self,
        name: str,
        times: Mapping[str, Timing],
        facts: tuple[int, float],
        replayed: bool,
    ) -> GpuRow:
        (nbytes, error), time = facts, times[name]
        dense = times[DENSE].seconds if DENSE in times else float("nan")
        return self._row(
            name,
            time,
            replayed=replayed,
            speedup=dense / time.seconds,
            error=error,
            nbytes=nbytes,
            note="",
        )

    def failed(self, name: str, note: str) -> GpuRow:
        nan = float("nan")
        time = Timing(nan, nan, 0)
        return self._row(
            name, time, replayed=False, speedup=nan, error=nan, nbytes=0, note=f"failed: {note}"
        )

    def _row(
        self,
        name: str,
        time: Timing,
        *,
        replayed: bool,
        speedup: float,
        error: float,
        nbytes: int,
        note: str,
    ) -> GpuRow:
        gpu: GPU = self.target.gpu
        return GpuRow(
            **vars(self.environment),
            arch=gpu.arch,
            triton=metadata.version("triton"),
            runtime=str(torch.version.hip or torch.version.cuda),
            case=str(self.case),
            candidate=name,
            ms=time.seconds * 1e3,
            mad=time.mad * 1e3,
            samples=time.samples,
            replayed=replayed,
            speedup=speedup,
            error=error,
            weight_bytes=nbytes,
            bandwidth_share=nbytes / time.seconds / gpu.bandwidth,
            note=note,
        )


def _error(subject: Subject, result: Tensor, weight: Tensor) -> float:
    x = subject.x[:CHECKED_ROWS].cpu().double()
    exact = F.linear(x, weight.double())
    got = result[:CHECKED_ROWS].cpu().double()
    return float((got - exact).abs().max() / exact.abs().max().clamp_min(1e-30))
