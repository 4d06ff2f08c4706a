"""`bench linear`: one linear, packed and dense, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsecompile.bench.candidates import INDUCTOR, LINEAR, SPARSE, Candidate, Subject, candidates
from sparsecompile.bench.cases import LinearCase
from sparsecompile.bench.environment import Environment
from sparsecompile.bench.timing import Timing, interleaved
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.compiler import Compiler

COLD_ROWS = 8
"""Up to so many rows a linear is bound by reading its weight, so where that lies counts."""
COLD_BYTES = 256_000_000
WARM_SECONDS = 2e-3
"""A warm sample lasts so long; a cold one is a single pass over the copies."""


@dataclass(frozen=True)
class LinearRow(Environment):
    """One candidate of one case.

    Attributes:
        case: `str(LinearCase)`.
        shape: `n x k`, such as `4096x4096`.
        m: rows of x.
        dtype: of x, the dense weight and y.
        format: what the weight was pruned to.
        candidate: `linear` (torch's own) and `onednn` (prepacked weights), called as they are;
            `inductor` and `sparse`, compiled.
        ms: milliseconds a call, overheads included: median of interleaved samples.
        mad: median absolute deviation of the samples, in milliseconds.
        samples: samples that counted.
        dropped: samples that were disturbed.
        copies: of the layer that were used in turn.
        speedup: time of `linear` over this one's.
        speedup_best_dense: time of the fastest dense candidate over this one's.
        speedup_compiled_dense: time of `inductor` over this one's: both pay for a compiled call.
        error: largest error against float64, as a share of the largest value of the result.
        weight_bytes: that a call reads of the weight.
        gb_per_s: `weight_bytes` over the time, in 1e9 bytes a second.
        bandwidth_share: of that in the measured read bandwidth; above 1 where caches helped.
        kernel: format and template that the backend chose, or why it left the weight dense.
    """

    case: str
    shape: str
    m: int
    dtype: str
    format: str
    candidate: str
    ms: float
    mad: float
    samples: int
    dropped: int
    copies: int
    speedup: float
    speedup_best_dense: float
    speedup_compiled_dense: float
    error: float
    weight_bytes: int
    gb_per_s: float
    bandwidth_share: float
    kernel: str

    @property
    def is_sparse(self) -> bool:
        """Whether the backend ran it."""
        return self.candidate.startswith(SPARSE)

    @property
    def left_dense(self) -> bool:
        """Whether the backend chose the dense linear."""
        return self.is_sparse and self.kernel.startswith("dense:")


def cold_bytes(machine: Machine) -> int:
    """Bytes of weights that no cache holds: above 256 MB and 3 times the last-level cache."""
    return max(COLD_BYTES, machine.llc_bytes * 3) + 1


def bench_linear(
    cases: Iterable[LinearCase],
    machine: Machine,
    *,
    options: Sequence[Mapping[str, Any]] = ({},),
    rounds: int = 20,
    rotate: int | None = None,
    started: Callable[[LinearCase], None] = lambda case: None,
) -> list[LinearRow]:
    """Time all candidates of all cases.

    Up to 8 rows the copies of a layer are used in turn, each once a sample, so that neither their
    weights nor the packed ones, between which the other candidates run, are in a cache.

    Args:
        cases: what to time.
        machine: limits of this machine.
        options: of the backend, one sparse candidate for each.
        rounds: samples of each candidate.
        rotate: bytes of dense weights to use in turn up to 8 rows; by default `cold_bytes`.
        started: is told of each case before it begins.

    Raises:
        SparseCompileError: an option cannot be used, or the backend failed.
    """
    for chosen in options:
        # An option that cannot be used is better known before the dense ones are measured.
        Compiler(**chosen)
    nbytes = cold_bytes(machine) if rotate is None else rotate
    rows: list[LinearRow] = []
    for case in cases:
        started(case)
        # Cases share code objects, and Dynamo compiles each of them only a few times.
        torch._dynamo.reset()
        torch.manual_seed(0)
        cold = case.m <= COLD_ROWS and nbytes > 0
        subject = Subject.of(case, -(-nbytes // case.dense_bytes) if cold else 1)
        with torch.no_grad():
            found = {c.name: c for c in candidates(subject, options)}
            errors = {name: subject.error(c.run()) for name, c in found.items()}
            runs = {name: c.run for name, c in found.items()}
            least = 0.0 if cold else WARM_SECONDS
            timings = interleaved(runs, rounds=rounds, least=least)
        rows += _rows(subject, found, errors, timings, machine)
    return rows


def _rows(
    subject: Subject,
    found: Mapping[str, Candidate],
    errors: Mapping[str, float],
    timings: Mapping[str, Timing],
    machine: Machine,
) -> list[LinearRow]:
    case, copies = subject.case, len(subject.layers)
    times = {name: timing / copies for name, timing in timings.items()}
    best = min(times[name].seconds for name, c in found.items() if c.dense)

    def row(candidate: Candidate, time: Timing) -> LinearRow:
        speed = candidate.weight_bytes / time.seconds
        return LinearRow(
            **vars(Environment.here(machine.cpu)),
            case=str(case),
            shape=case.shape,
            m=case.m,
            dtype=case.dtype,
            format=case.format,
            candidate=candidate.name,
            ms=time.seconds * 1e3,
            mad=time.mad * 1e3,
            samples=time.samples,
            dropped=time.dropped,
            copies=copies,
            speedup=times[LINEAR].seconds / time.seconds,
            speedup_best_dense=best / time.seconds,
            speedup_compiled_dense=times[INDUCTOR].seconds / time.seconds,
            error=errors[candidate.name],
            weight_bytes=candidate.weight_bytes,
            gb_per_s=speed / 1e9,
            bandwidth_share=speed / machine.read_bandwidth,
            kernel=candidate.kernel,
        )

    return [row(candidate, times[name]) for name, candidate in found.items()]
