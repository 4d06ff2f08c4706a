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

from sparsecompile.backend import sparse
from sparsecompile.bench.compile.models import load
from sparsecompile.codegen.entries import VARIABLE
from sparsecompile.graph.timed import PREFIX
from sparsecompile.lowering.inductor import CPU_DEFAULTS

CANDIDATES: dict[str, dict[str, Any]] = {
    "inductor": {},
    "inductor-cpp": {"options": dict(CPU_DEFAULTS)},
    "sparse": {"backend": sparse},
}
"""What `torch.compile` is given."""
PARTS = ("passes", "detection", "choosing", "building", "layouts", "inductor")
"""What sparsecompile notes; `detection` in the midst of `passes`."""
WHOLE, BACKEND = "_compile.compile_inner", "OutputGraph.call_user_compiler"
"""What torch calls a compilation, and the part that a backend has in it."""


def measure(name: str, candidate: str, folder: str) -> dict[str, float]:
    """Seconds that the first call of a model takes, and its parts: fields of `CompileRow`.

    Args:
        name: of the model.
        candidate: one of `CANDIDATES`.
        folder: for what sparsecompile keeps.
    """
    # Torch's own backend imports it when it is named, ours when it is called.
    import torch._inductor.compile_fx

    function, run = load(name)
    # Not before: models that are converted once are kept in this folder.
    os.environ[VARIABLE] = folder
    compiled = torch.compile(function, **CANDIDATES[candidate])
    start, cpu = time.perf_counter(), _cpu_seconds()
    with torch.no_grad():
        run(compiled)
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    whole, backend = _noted(WHOLE), _noted(BACKEND)
    parts = {part: _noted(f"{PREFIX}{part}") for part in PARTS}
    parts["passes"] -= parts["detection"]
    if candidate != "sparse":
        parts["inductor"] = backend
    other = backend - sum(parts.values())
    found = {"seconds": seconds, "cpu_seconds": cpu, "dynamo": whole - backend, **parts}
    return {**found, "other": other, "call": seconds - whole}


def _noted(part: str) -> float:
    """Seconds that all compilations took for a part."""
    noted: dict[str, list[float]] = torch._dynamo.utils.compilation_time_metrics
    return sum(noted.get(part, ()))


def _cpu_seconds() -> float:
    """Of all threads, and of processes that were started."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))  # noqa: T201 - the answer
