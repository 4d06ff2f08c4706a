"""llama.cpp: `llama-bench` on PATH, else a Python package with it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.models.gguf_type import AS_IT_IS, gguf_as
from sparsecompile.bench.peers.prepared import LeftOut, Prepared, Sample

TOKENS = 32
PROGRAM = "llama-bench"
Runner = Callable[[Workload, Job, Path], tuple[Callable[[], Sample | None], str]]


class LlamaCpp(Peer):
    """Options: the type of the GGUF file's matrices."""

    name = "llama.cpp"

    def missing(self) -> str | None:
        """One of three."""
        if shutil.which(PROGRAM) or find_spec("llama_cpp") or find_spec("xllamacpp"):
            return None
        return (
            "not installed: llama-bench on PATH, pip install llama-cpp-python (which it compiles), "
            "or pip install xllamacpp"
        )

    def versions(self) -> str:
        """Of what brings it."""
        if shutil.which(PROGRAM):
            return PROGRAM
        name = "llama-cpp-python" if find_spec("llama_cpp") else "xllamacpp"
        return f"{name} {metadata.version(name)}"

    def variants(self, workload: Workload) -> tuple[str, ...]:
        """Where tokens follow one another."""
        return {"decode": ("Q4_0", "Q8_0"), "prefill": ("Q8_0",)}.get(workload.kind, ())

    def prepare(self, workload: Workload, job: Job) -> Prepared:
        """The first of the three that is there."""
        if workload.kind not in ("decode", "prefill"):
            raise LeftOut(f"does not run {workload.name}")
        kind = job.take(type=AS_IT_IS)["type"]
        file = gguf_as(job.model, kind)
        if shutil.which(PROGRAM):
            run, what = _program(workload, job, file)
        elif find_spec("llama_cpp"):
            run, what = _binding(workload, job, file)
        else:
            run, what = _server(workload, job, file)
        items = job.size if workload.kind == "prefill" else TOKENS
        return Prepared(run, items, f"GGUF {kind}, {what}")


def _program(workload: Workload, job: Job, file: Path) -> tuple[Callable[[], Sample | None], str]:
    """A process for each sample; it measures itself."""
    sizes = {"prefill": f"-p {job.size} -n 0", "decode": f"-p 0 -n {TOKENS} -d {job.size}"}
    words = f"-t {job.threads} -r 1 -o json {sizes[workload.kind]}".split()

    def run() -> Sample:
        done = subprocess.run(
            (PROGRAM, "-m", str(file), *words), capture_output=True, text=True, check=True
        )
        return {"seconds": json.loads(done.stdout)[0]["avg_ns"] / 1e9}

    return run, PROGRAM


def _binding(workload: Workload, job: Job, file: Path) -> tuple[Callable[[], Sample | None], str]:
    """`llama_cpp.Llama.eval`, token by token."""
    import llama_cpp

    llama: Any = llama_cpp.Llama(
        str(file),
        n_ctx=job.size + TOKENS,
        n_batch=job.size,
        n_threads=job.threads,
        n_threads_batch=job.threads,
        verbose=False,
    )
    prompt = [(1000 + i) % 40_000 for i in range(job.size)]
    llama.eval(prompt)

    def prefill() -> None:
        llama.reset()
        llama.eval(prompt)

    def decode() -> None:
        llama.n_tokens = job.size
        for _ in range(TOKENS):
            llama.eval([llama.sample(temp=0.0)])

    return (prefill if workload.kind == "prefill" else decode), "llama_cpp"


def _server(workload: Workload, job: Job, file: Path) -> tuple[Callable[[], Sample | None], str]:
    """The server of llama.cpp inside of this process; it measures itself."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job.threads
    params.n_ctx, params.n_parallel, params.verbosity = job.size + 2 * TOKENS, 1, 0
    server = xllamacpp.Server(params)
    turns = itertools.count()
    prefill = workload.kind == "prefill"

    def run() -> Sample:
        prompt = [(1000 + i + 7 * next(turns)) % 40_000 for i in range(job.size)]
        answer = server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": 1 if prefill else TOKENS,
                "temperature": 0,
                "cache_prompt": False,
                "ignore_eos": True,
            }
        )
        seen = answer["timings"]
        share = seen["prompt_n"] / job.size if prefill else seen["predicted_n"] / TOKENS
        return {"seconds": seen["prompt_ms" if prefill else "predicted_ms"] / 1e3 / share}

    vectors = [word for word in ("AVX512", "AVX2") if f"{word} = 1" in xllamacpp.get_system_info()]
    return run, f"built for {vectors[0] if vectors else 'any CPU'}"


COMPONENTS = (LlamaCpp(),)
