"""One way to attend over one prompt: `python -m ...worker TOKENS DTYPE CANDIDATE ROUNDS THREADS`.

Its last line on stdout is what it took, as JSON: see `measure`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

import torch

from sparsecompile.bench.attention.cases import window_case
from sparsecompile.bench.attention.inputs import inputs_of
from sparsecompile.bench.attention.run import contestant
from sparsecompile.errors import SparseCompileError

PROCESS = Path("/proc/self")
PEAK = "VmHWM:"
"""How Linux calls it. What `getrusage` says is never less than the memory of the process that
started this one."""
MOST_SECONDS = 5.0


def measure(tokens: int, dtype: str, candidate: str, rounds: int) -> dict[str, float | str]:
    """Fields of `LengthRow`.

    Raises:
        SparseCompileError: this system does not say what memory it takes.
    """
    case = window_case(tokens, dtype)
    inputs = inputs_of(case)
    run = contestant(case, candidate)
    samples: list[float] = []
    with torch.no_grad():
        run(*inputs)
        before = forget_peak()
        while not samples or (len(samples) < rounds and sum(samples) < MOST_SECONDS):
            start = time.perf_counter()
            run(*inputs)
            samples.append(time.perf_counter() - start)
    return {
        "dtype": dtype,
        "tokens": tokens,
        "candidate": candidate,
        "ms": median(samples) * 1e3,
        "peak_mb": (peak_bytes() - before) / 1e6,
    }


def forget_peak(process: Path = PROCESS) -> int:
    """Let the peak of resident memory be what is resident now, in bytes.

    Raises:
        SparseCompileError: this system does not do so.
    """
    try:
        (process / "clear_refs").write_text("5")
    except OSError as error:
        raise SparseCompileError(
            f"the peak of memory cannot be measured here: {process}/clear_refs: {error.strerror}; "
            "run this on Linux, with /proc"
        ) from error
    return peak_bytes(process)


def peak_bytes(process: Path = PROCESS) -> int:
    """Of resident memory, since it was last forgotten."""
    lines = (process / "status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(PEAK))


if __name__ == "__main__":
    tokens, dtype, candidate, rounds, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(measure(int(tokens), dtype, candidate, int(rounds))))  # noqa: T201 - the answer
