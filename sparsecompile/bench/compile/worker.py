"""One compilation in this process: `python -m sparsecompile.bench.compile.worker MODEL CANDIDATE`.

Its last line on stdout is what it took, as JSON: see `measure`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch

from sparsecompile.bench.compile.models import load
from sparsecompile.codegen.entries import VARIABLE
from sparsecompile.compiler import Compiler
from sparsecompile.graph.timed import PREFIX
from sparsecompile.lowering.inductor import CPU_DEFAULTS

CANDIDATES: dict[str, dict[str, Any]] = {
    "inductor": {},
    "inductor-cpp": {"options": dict(CPU_DEFAULTS)},
    "sparse": {},
}
"""What `torch.compile` is given."""
WHOLE, BACKEND = "_compile.compile_inner", "OutputGraph.call_user_compiler"
"""What torch calls a compilation, and the part that a backend has in it."""


def measure(name: str, candidate: str, folder: str) -> dict[str, float]:
    """Seconds that the first call of a model takes, and the parts of it.

    Args:
        name: of the model.
        candidate: one of `CANDIDATES`.
        folder: for what sparsecompile keeps.

    Returns:
        `seconds`, `cpu_seconds` (of all threads and of compilers), `dynamo`, `backend`, and those
        parts that sparsecompile notes; `detection` is a part of `passes`.
    """
    function, run = load(name)
    # Not before: models that are converted once are kept in this folder.
    os.environ[VARIABLE] = folder
    given = {"backend": Compiler()} if candidate == "sparse" else CANDIDATES[candidate]
    compiled = torch.compile(function, **given)
    start, cpu = time.perf_counter(), _cpu_seconds()
    with torch.no_grad():
        run(compiled)
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    noted = torch._dynamo.utils.compilation_time_metrics
    parts = {key: sum(times) for key, times in noted.items()}
    backend = parts.get(BACKEND, 0.0)
    own = {k.removeprefix(PREFIX): parts[k] for k in parts if k.startswith(PREFIX)}
    whole = parts.get(WHOLE, 0.0)
    found = {"seconds": seconds, "cpu_seconds": cpu, "dynamo": whole - backend}
    return {**found, "backend": backend, "call": seconds - whole, **own}


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:4])))  # noqa: T201 - the answer
