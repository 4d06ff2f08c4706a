"""Compilations of a model, cold and warm, each in a process of its own, interleaved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sparsecompile.bench.compile.worker import CANDIDATES
from sparsecompile.bench.environment import Environment
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.errors import SparseCompileError

CACHES = ("cold", "warm")
WORKER = (sys.executable, "-m", "sparsecompile.bench.compile.worker")
LAST_LINES = 5


@dataclass(frozen=True)
class CompileRow(Environment):
    """One way to compile a model: medians of seconds, each in a process of its own.

    Attributes:
        model: its name.
        caches: `cold`, with empty cache folders, or `warm`, with what the cold one left there. The
            headers that torch precompiles are in neither: it keeps them in the temporary folder.
        candidate: `inductor`; `inductor-cpp`, with the options that the backend gives it for the
            rest of a graph; or `sparse`.
        seconds: of the first call: from Dynamo to the result. Imports come before, models too.
        ratio: over those of `inductor`.
        cpu_seconds: of all threads, and of the compilers that were started.
        dynamo: of a compilation without its backend.
        passes: over the graph, without `detection`.
        detection: what is found in weights, and whether these changed.
        choosing: which kernel serves, by measurement or by the record; builds for it are in it.
        building: the kernels that were chosen.
        layouts: weights as kernels read them.
        inductor: the rest of the graph, or for `inductor` all of it.
        other: of the backend.
        call: what is left, mostly the call itself.
        samples: how many of each.
    """

    model: str
    caches: str
    candidate: str
    seconds: float
    ratio: float
    cpu_seconds: float
    dynamo: float
    passes: float
    detection: float
    choosing: float
    building: float
    layouts: float
    inductor: float
    other: float
    call: float
    samples: int


def bench_compile(
    model: str,
    machine: Machine,
    *,
    rounds: int = 1,
    started: Callable[[str], object] = lambda what: None,
) -> list[CompileRow]:
    """Compile a model with each candidate, cold and then warm.

    Args:
        model: its name, or MODULE:FACTORY.
        machine: limits of this machine.
        rounds: samples of each.
        started: is told what is compiled now.

    Raises:
        SparseCompileError: a process failed.
    """
    found: dict[tuple[str, str], list[dict[str, float]]] = {
        (caches, candidate): [] for caches in CACHES for candidate in CANDIDATES
    }
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="sparsecompile-bench-") as folder:
            for (caches, candidate), samples in found.items():
                started(f"{model}: {candidate}, {caches}")
                samples.append(_compiled(model, candidate, Path(folder, candidate)))
    return [
        _row(model, *case, samples, found[case[0], "inductor"], machine)
        for case, samples in found.items()
    ]


def _compiled(model: str, candidate: str, folder: Path) -> dict[str, float]:
    """What a compilation in a process of its own took.

    Raises:
        SparseCompileError: it failed.
    """
    own = folder / "sparsecompile"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    words = (*WORKER, model, candidate, str(own))
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise SparseCompileError(
            f"compiling {model} with {candidate} ended with exit status {done.returncode}\n{lines}"
        )
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def _row(
    model: str,
    caches: str,
    candidate: str,
    samples: list[dict[str, float]],
    dense: list[dict[str, float]],
    machine: Machine,
) -> CompileRow:
    def middle(name: str) -> float:
        return median(sample[name] for sample in samples)

    return CompileRow(
        **vars(Environment.here(machine.cpu)),
        model=model,
        caches=caches,
        candidate=candidate,
        seconds=middle("seconds"),
        ratio=middle("seconds") / median(sample["seconds"] for sample in dense),
        cpu_seconds=middle("cpu_seconds"),
        dynamo=middle("dynamo"),
        passes=middle("passes"),
        detection=middle("detection"),
        choosing=middle("choosing"),
        building=middle("building"),
        layouts=middle("layouts"),
        inductor=middle("inductor"),
        other=middle("other"),
        call=middle("call"),
        samples=len(samples),
    )
