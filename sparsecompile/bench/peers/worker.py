"""The process of one contestant: a job on its first line, then a request on each, as JSON.

It answers each with a line: `ready`, `left_out`, `seconds` or `parts`. What a library prints goes
to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.prepared import LeftOut, Prepared
from sparsecompile.codegen.tuning.measure import involuntary_switches

LEAST_SECONDS = 0.2
"""A sample lasts at least so long; shorter ones are repeated, after one that does not count."""


def answers(job: Job, requests: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    """An answer to the job, and one to each request."""
    from sparsecompile.bench.peers.discovery import find, named

    peer = named(find(Peer, job.add), job.peer, "peer")
    workload = named(find(Workload, job.add), job.workload, "workload")
    try:
        prepared = peer.prepare(workload, job)
    except LeftOut as reason:
        yield {"left_out": str(reason)}
        return
    prepared.run()
    # What is compiled lazily, and caches, are settled by the second.
    took = _timed(prepared, 1)["seconds"]
    repeats = max(1, ceil(LEAST_SECONDS / max(took, 1e-9)))
    yield {"ready": prepared.what, "items": prepared.items, "versions": peer.versions()}
    for request in requests:
        if request == "parts":
            yield {"parts": None if prepared.parts is None else dict(prepared.parts())}
            continue
        if repeats > 1:
            prepared.run()
        before = involuntary_switches()
        seen = _timed(prepared, repeats)
        yield {**seen, "disturbed": involuntary_switches() != before}


def _timed(prepared: Prepared, repeats: int) -> dict[str, float]:
    """Seconds of a sample, and the mean of what else the samples say."""
    totals: dict[str, float] = {}
    start = time.perf_counter()
    for _ in range(repeats):
        for name, value in (prepared.run() or {}).items():
            totals[name] = totals.get(name, 0.0) + value
    # A peer that measures itself says `seconds`, which then counts.
    totals = {"seconds": time.perf_counter() - start, **totals}
    return {name: total / repeats for name, total in totals.items()}


def main() -> None:
    """Serve stdin until it ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines = (json.loads(line) for line in sys.stdin)
    job = Job(**next(lines))
    job = replace(job, add=tuple(job.add))
    for answer in answers(job, lines):
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
