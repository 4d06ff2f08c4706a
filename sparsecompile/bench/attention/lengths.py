"""What attention over a window takes by the number of tokens: memory, and time on a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import correlation, linear_regression
from typing import Any

from sparsecompile.bench.attention.cases import window_case
from sparsecompile.bench.attention.run import OWN, SPARSE
from sparsecompile.bench.environment import Environment
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.errors import SparseCompileError

WORKER = (sys.executable, "-m", "sparsecompile.bench.attention.worker")
LAST_LINES = 5


@dataclass(frozen=True)
class LengthRow(Environment):
    """A prompt with a window of 256, in a process of its own.

    Attributes:
        dtype: name of one of torch's.
        tokens: length of the prompt.
        candidate: `sparse`, or `sdpa, its mask`, as `AttentionRow` has them.
        ms: milliseconds a call, once it is compiled: the median.
        peak_mb: resident memory at most during calls, less that between them, in 10^6 bytes. What
            is returned counts, inputs and compilers do not.
    """

    dtype: str
    tokens: int
    candidate: str
    ms: float
    peak_mb: float


@dataclass(frozen=True)
class Line:
    """Time by tokens.

    Attributes:
        us_per_token: slope.
        r_squared: share of the variance that it explains.
    """

    us_per_token: float
    r_squared: float


def bench_lengths(
    lengths: Sequence[int],
    dtypes: Sequence[str],
    machine: Machine,
    *,
    rounds: int,
    started: Callable[[str], object],
) -> list[LengthRow]:
    """Measure prompts, one after the other.

    Args:
        lengths: tokens.
        dtypes: names.
        machine: limits of this machine.
        rounds: calls that count, fewer where they take long.
        started: called with each before it.

    Raises:
        SparseCompileError: a process failed.
    """
    rows = []
    here = Environment.here(machine.cpu)
    for dtype in dtypes:
        for tokens in lengths:
            for candidate in (SPARSE, OWN):
                started(f"{window_case(tokens, dtype)}: {candidate}")
                found = _measured(tokens, dtype, candidate, rounds, here.threads)
                rows.append(LengthRow(**vars(here), **found))
    return rows


def line_of(rows: Sequence[LengthRow]) -> Line:
    """The line through times of different lengths, by least squares.

    Args:
        rows: of one candidate and dtype, two lengths at least.
    """
    tokens, times = [row.tokens for row in rows], [row.ms * 1e3 for row in rows]
    return Line(linear_regression(tokens, times).slope, correlation(tokens, times) ** 2)


def _measured(tokens: int, dtype: str, candidate: str, rounds: int, threads: int) -> dict[str, Any]:
    """Fields of a row.

    Raises:
        SparseCompileError: the process failed.
    """
    words = (*WORKER, str(tokens), dtype, candidate, str(rounds), str(threads))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise SparseCompileError(
            f"{window_case(tokens, dtype)}: {candidate} ended with exit status {done.returncode}; "
            f"below 0 it was killed, as for want of memory: see --lengths\n{lines}".rstrip()
        )
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return fields
