"""A series: the contestants of one workload, one after the other, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from sparsecompile.bench.environment import Environment
from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.process import ContestantError, ContestantProcess
from sparsecompile.bench.timing import summary
from sparsecompile.codegen.cpp.machine import Machine

SPIN_S = 0.1
"""After its turn a contestant's threads may spin before they sleep: OpenMP's for milliseconds."""
MEASURED, LEFT_OUT, FAILED = "measured", "left out", "failed"
Start = Callable[[Job], ContestantProcess]


@dataclass(frozen=True)
class PeerRow(Environment):
    """One contestant of one case.

    Attributes:
        workload: its name.
        case: size of the workload, such as `batch 8 x 128 tokens`.
        contestant: peer and options, such as `sparse bfloat16 prune=2:4`.
        outcome: `measured`, `left out`, `failed`; without being measured all numbers are 0.
        per_s: tokens or sentences a second, by the median of interleaved samples.
        unit: what `per_s` counts.
        ms: milliseconds a sample.
        mad: median absolute deviation of the samples, in milliseconds.
        items: tokens or sentences of a sample.
        samples: all that were taken. On a busy machine some contestants are never undisturbed, so
            leaving out what was disturbed would favour the others.
        disturbed: samples in which the system took a processor away.
        of_fastest: `per_s` over that of the fastest contestant of the case.
        overhead_ms: of a sample, outside of the model; where the workload says so.
        versions: of the peer.
        note: what was computed with, or why the contestant was not measured.
    """

    workload: str
    case: str
    contestant: str
    outcome: str
    per_s: float
    unit: str
    ms: float
    mad: float
    items: int
    samples: int
    disturbed: int
    of_fastest: float
    overhead_ms: float
    versions: str
    note: str


@dataclass
class _Contestant:
    job: Job
    process: ContestantProcess | None = None
    outcome: str = LEFT_OUT
    note: str = ""
    versions: str = ""
    items: int = 0
    samples: list[tuple[float, bool]] | None = None
    overheads: list[float] | None = None

    def drop(self, error: ContestantError) -> None:
        self.outcome, self.note = FAILED, error.reason
        if self.process is not None:
            self.process.close()
        self.process = None


@dataclass(frozen=True)
class Series:
    """How a series is run.

    Attributes:
        rounds: samples of each contestant.
        ready_s: seconds in which a contestant has to be ready.
        sample_s: seconds in which a sample has to be done.
        started: is told of each contestant before it begins.
        failed: is told of each failure, with what the contestant wrote to stderr.
        start: makes the process of a contestant.
    """

    rounds: int = 10
    ready_s: float = 600.0
    sample_s: float = 120.0
    started: Callable[[Job], None] = lambda job: None
    failed: Callable[[ContestantError], None] = lambda error: None
    start: Start = ContestantProcess

    def run(
        self, workload: Workload, jobs: Sequence[Job], peers: Mapping[str, Peer], machine: Machine
    ) -> list[PeerRow]:
        """Measure the contestants of one case.

        Args:
            workload: what they run.
            jobs: one for each contestant, all of the same size.
            peers: by name.
            machine: limits of this machine.
        """
        contestants = [_Contestant(job) for job in jobs]
        with ExitStack() as stack:
            for one in contestants:
                peer = peers[one.job.peer]
                reason = peer.missing() or workload.missing(one.job.model)
                if reason is not None:
                    one.note = reason
                    continue
                self.started(one.job)
                self._begin(one, stack)
            for _ in range(self.rounds):
                for one in contestants:
                    self._sample(one)
        return _rows(workload, contestants, machine)

    def profile(self, job: Job) -> Mapping[str, float] | str:
        """Milliseconds by part of one step, or why the contestant cannot say.

        Raises:
            ContestantError: it failed.
        """
        with ExitStack() as stack:
            process = self.start(replace(job, profile=True))
            stack.callback(process.close)
            answer = process.begin(self.ready_s)
            if "left_out" in answer:
                return str(answer["left_out"])
            parts: Mapping[str, float] | None = process.ask("parts", self.sample_s)["parts"]
            return "it does not say where time goes" if parts is None else parts

    def _begin(self, one: _Contestant, stack: ExitStack) -> None:
        one.process = self.start(one.job)
        stack.callback(one.process.close)
        try:
            answer = one.process.begin(self.ready_s)
        except ContestantError as error:
            self.failed(error)
            one.drop(error)
            return
        if "left_out" in answer:
            one.note = answer["left_out"]
            one.process.close()
            one.process = None
            return
        one.outcome, one.note, one.versions = MEASURED, answer["ready"], answer["versions"]
        one.items, one.samples, one.overheads = answer["items"], [], []

    def _sample(self, one: _Contestant) -> None:
        if one.process is None or one.samples is None or one.overheads is None:
            return
        time.sleep(SPIN_S)
        try:
            answer = one.process.ask("run", self.sample_s)
        except ContestantError as error:
            self.failed(error)
            one.drop(error)
            return
        one.samples.append((answer["seconds"], answer["disturbed"]))
        one.overheads.append(answer.get("overhead", 0.0))


def _rows(
    workload: Workload, contestants: Sequence[_Contestant], machine: Machine
) -> list[PeerRow]:
    def row(one: _Contestant, best: float) -> PeerRow:
        measured = one.outcome == MEASURED and one.samples
        timing = summary([(each, False) for each, _ in one.samples or ()]) if measured else None
        seconds = timing.seconds if timing else 0.0
        speed = one.items / seconds if seconds else 0.0
        overheads = sorted(one.overheads or [0.0])
        here = {**vars(Environment.here(machine.cpu)), "threads": one.job.threads}
        return PeerRow(
            **here,
            workload=workload.name,
            case=workload.label(one.job.size),
            contestant=one.job.contestant,
            outcome=one.outcome,
            per_s=speed,
            unit=workload.unit,
            ms=seconds * 1e3,
            mad=timing.mad * 1e3 if timing else 0.0,
            items=one.items if timing else 0,
            samples=timing.samples if timing else 0,
            disturbed=sum(disturbed for _, disturbed in one.samples or ()) if timing else 0,
            of_fastest=speed / best if best else 0.0,
            overhead_ms=overheads[len(overheads) // 2] * 1e3 if timing else 0.0,
            versions=one.versions,
            note=one.note,
        )

    best = max((row(one, 0.0).per_s for one in contestants), default=0.0)
    return [row(one, best) for one in contestants]
