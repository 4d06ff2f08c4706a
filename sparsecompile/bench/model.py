"""`bench model`: a whole model, eager, under Inductor and under the sparse backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.bench.environment import Environment
from sparsecompile.bench.timing import interleaved
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.compiler import Compiler

LEAST_SECONDS = 2e-3
"""A sample lasts at least so long; shorter models run several times for one."""


@dataclass(frozen=True)
class ModelRow(Environment):
    """One way to run a model.

    Attributes:
        model: what made it, such as `demo.py:make`.
        options: of the backend, such as `prune=2:4`; empty without.
        candidate: `eager`, `inductor` or `sparse`.
        ms: milliseconds a call: median of interleaved samples.
        mad: median absolute deviation of the samples, in milliseconds.
        samples: samples that counted.
        dropped: samples that were disturbed.
        speedup: time of eager over this one's.
        speedup_best_dense: time of the faster of eager and Inductor over this one's.
        compile_s: seconds of the first call; torch's caches are empty before it, and kernels that
            sparsecompile has built for an earlier model are not built again.
        difference: largest difference from eager's results, as a share of their largest value;
            of the floating-point tensors that `torch.utils._pytree` finds in them.
        weight_bytes: of all linears, as this candidate reads them.
        packed: linears that were packed, and all of them, such as `210 of 211`.
    """

    model: str
    options: str
    candidate: str
    ms: float
    mad: float
    samples: int
    dropped: int
    speedup: float
    speedup_best_dense: float
    compile_s: float
    difference: float
    weight_bytes: int
    packed: str


def bench_model(
    name: str,
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    machine: Machine,
    *,
    options: Mapping[str, Any],
    rounds: int = 20,
) -> list[ModelRow]:
    """Time a model on its inputs, without gradients.

    Args:
        name: what to call it.
        model: a module or function.
        args: its inputs.
        kwargs: its keyword inputs.
        machine: limits of this machine.
        options: of the backend; what they change is in `difference`.
        rounds: samples of each candidate.

    Raises:
        SparseCompileError: the backend failed.
    """
    # Importing it at module level would import all of Inductor.
    from torch._inductor.utils import fresh_cache

    compiler = Compiler(**options)
    functions: dict[str, Callable[..., Any]] = {
        "eager": model,
        "inductor": torch.compile(model),
        "sparse": torch.compile(model, backend=compiler),
    }
    torch._dynamo.reset()
    results: dict[str, list[Tensor]] = {}
    first: dict[str, float] = {}
    with torch.no_grad():
        # The first compilation in a process imports the compiler, whoever asks for it.
        for backend in ("inductor", Compiler()):
            torch.compile(torch.nn.ReLU(), backend=backend)(torch.ones(1))
        for candidate, function in functions.items():
            # Or the second to compile would find what the first has compiled.
            with fresh_cache():
                start = time.perf_counter()
                results[candidate] = _tensors(function(*args, **kwargs))
                first[candidate] = time.perf_counter() - start
        timings = interleaved(
            {candidate: _call(function, args, kwargs) for candidate, function in functions.items()},
            rounds=rounds,
            least=LEAST_SECONDS,
        )
    report = compiler.report
    packed = sum(node.packed for node in report.linears)
    best = min(timings["eager"].seconds, timings["inductor"].seconds)
    return [
        ModelRow(
            **vars(Environment.here(machine.cpu)),
            model=name,
            options=" ".join(f"{key}={value}" for key, value in options.items()),
            candidate=candidate,
            ms=timing.seconds * 1e3,
            mad=timing.mad * 1e3,
            samples=timing.samples,
            dropped=timing.dropped,
            speedup=timings["eager"].seconds / timing.seconds,
            speedup_best_dense=best / timing.seconds,
            compile_s=0.0 if candidate == "eager" else first[candidate],
            difference=_difference(results[candidate], results["eager"]),
            weight_bytes=report.packed_bytes if candidate == "sparse" else report.dense_bytes,
            packed=f"{packed} of {len(report.linears)}" if candidate == "sparse" else "",
        )
        for candidate, timing in timings.items()
    ]


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[], Any]:
    return lambda: function(*args, **kwargs)


def _tensors(result: object) -> list[Tensor]:
    """The floating-point tensors in whatever a model returns."""
    from torch.utils._pytree import tree_leaves

    leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def _difference(results: list[Tensor], expected: list[Tensor]) -> float:
    largest = 0.0
    for ours, theirs in zip(results, expected, strict=True):
        if theirs.numel():
            scale = theirs.double().abs().max().clamp_min(1e-30)
            largest = max(largest, float((ours.double() - theirs.double()).abs().max() / scale))
    return largest
