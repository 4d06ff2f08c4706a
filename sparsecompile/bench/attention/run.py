"""A case of `bench attention`, as each contestant runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.bench.attention.cases import AttentionCase
from sparsecompile.bench.attention.inputs import (
    Heads,
    bytes_of_keys,
    doubled,
    floats,
    inputs_of,
    mask_of,
    work,
)
from sparsecompile.bench.environment import Environment
from sparsecompile.bench.timing import interleaved
from sparsecompile.codegen.cpp.machine import Machine, read_bandwidth
from sparsecompile.compiler import Compiler

LEAST_SECONDS = 2e-3
"""A sample lasts at least so long."""
SPARSE, OWN, FREE, FLEX = "sparse", "sdpa, its mask", "sdpa, no mask", "flex"
Run = Callable[[], Any]


@dataclass(frozen=True)
class AttentionRow(Environment):
    """One way to compute an attention.

    Attributes:
        case: `str(AttentionCase)`.
        candidate: `sparse`; `sdpa, its mask`, as Hugging Face's models call it, under Inductor;
            `sdpa, no mask`, by `is_causal` or over the sliced cache, where that says the same;
            `flex`, FlexAttention with a block mask, compiled.
        ms: milliseconds a call: median of interleaved samples.
        mad: median absolute deviation of the samples, in milliseconds.
        samples: samples that counted.
        dropped: samples that were disturbed.
        speedup: time of `sdpa, its mask` over this one's.
        speedup_best: time of the fastest of the others over this one's.
        gflops: of the two products at the places that count, in 10^9 a second.
        gb_per_s: that q, the keys and values that count, and the result take, in 10^9 bytes.
        kv_gb_per_s: of keys and values that count alone, for one query; else 0.
        read_share: of what reading as many bytes of memory, again and again as here, reaches
            between the samples; 0 for more than one query.
        difference: largest difference from float64, over that of `sdpa, its mask`.
        kernel: what serves it, or why none does.
    """

    case: str
    candidate: str
    ms: float
    mad: float
    samples: int
    dropped: int
    speedup: float
    speedup_best: float
    gflops: float
    gb_per_s: float
    kv_gb_per_s: float
    read_share: float
    difference: float
    kernel: str


def bench_attention(
    cases: Sequence[AttentionCase],
    machine: Machine,
    *,
    rounds: int,
    started: Callable[[AttentionCase], object],
) -> list[AttentionRow]:
    """Time cases, one after the other.

    Args:
        cases: what to measure.
        machine: limits of this machine.
        rounds: samples of each candidate.
        started: called with each case before it.
    """
    rows = []
    for case in cases:
        started(case)
        torch._dynamo.reset()
        with torch.no_grad():
            rows += _rows(case, machine, rounds)
    return rows


def _rows(case: AttentionCase, machine: Machine, rounds: int) -> list[AttentionRow]:
    inputs = inputs_of(case)
    compiler = Compiler()
    runs = contestants(case, inputs, compiler)
    results = {name: run() for name, run in runs.items()}
    exact = [t.double() for t in as_models_do(case)(*doubled(inputs))]
    errors = {
        name: max(float((a.double() - b).abs().max()) for a, b in zip(found, exact, strict=True))
        for name, found in results.items()
    }
    places, nbytes = work(case)
    kv_bytes = bytes_of_keys(case) if case.queries == 1 else 0
    # Between the samples: what a machine reads a second varies within seconds.
    reads: list[float] = []
    threads = torch.get_num_threads()
    timings = interleaved(
        runs,
        rounds=rounds,
        least=LEAST_SECONDS,
        ready=(lambda: reads.append(read_bandwidth(kv_bytes, threads))) if kv_bytes else None,
    )
    read = median(reads) if reads else 1.0
    nodes = compiler.report.nodes
    kernels = {n.kernel.template if n.kernel else n.reason.partition(":")[0] for n in nodes}
    return [
        AttentionRow(
            **vars(Environment.here(machine.cpu)),
            case=str(case),
            candidate=name,
            ms=timing.seconds * 1e3,
            mad=timing.mad * 1e3,
            samples=timing.samples,
            dropped=timing.dropped,
            speedup=timings[OWN].seconds / timing.seconds,
            speedup_best=min(t.seconds for other, t in timings.items() if other != name)
            / timing.seconds,
            gflops=4 * places * case.width / timing.seconds / 1e9,
            gb_per_s=nbytes / timing.seconds / 1e9,
            kv_gb_per_s=kv_bytes / timing.seconds / 1e9,
            read_share=kv_bytes / timing.seconds / read,
            difference=errors[name] / max(errors[OWN], 1e-30),
            kernel=", ".join(sorted(kernels)) if name == SPARSE else "",
        )
        for name, timing in timings.items()
    ]


def as_models_do(case: AttentionCase) -> Callable[..., list[Tensor]]:
    """The stack, its mask made as transformers' models make it."""

    def run(qs: list[Tensor], ks: list[Heads], vs: list[Heads], there: Tensor) -> list[Tensor]:
        mask = mask_of(case, there)
        found = []
        for q, *stored in zip(qs, ks, vs, strict=True):
            k, v = (floats(heads, q.dtype) for heads in stored)
            groups = case.heads // case.kv_heads
            if groups > 1:
                k, v = _repeated(k, groups), _repeated(v, groups)
            found.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return found

    return run


def contestants(case: AttentionCase, inputs: tuple[Any, ...], compiler: Compiler) -> dict[str, Run]:
    """Every way to compute it, compiled when first called."""
    found = {name: contestant(case, name, compiler) for name in (SPARSE, OWN)}
    free = _without_mask(case)
    if free is not None:
        found[FREE] = torch.compile(free, dynamic=False)
    if case.queries > 1:
        found[FLEX] = _flex(case, inputs[3])
    return {name: _call(function, inputs) for name, function in found.items()}


def contestant(
    case: AttentionCase, name: str, compiler: Compiler | None = None
) -> Callable[..., list[Tensor]]:
    """As models do it, under the backend or Inductor: `SPARSE` or `OWN`."""
    backend = (compiler or Compiler()) if name == SPARSE else "inductor"
    return torch.compile(as_models_do(case), backend=backend, dynamic=False)


def _without_mask(case: AttentionCase) -> Callable[..., list[Tensor]] | None:
    if case.mask not in ("causal", "cache", "full"):
        return None
    grouped: dict[str, Any] = {"enable_gqa": True} if case.heads != case.kv_heads else {}
    causal, kept = case.mask == "causal", case.context

    def run(qs: list[Tensor], ks: list[Heads], vs: list[Heads], there: Tensor) -> list[Tensor]:
        found = []
        for q, *stored in zip(qs, ks, vs, strict=True):
            k, v = (floats(heads, q.dtype)[:, :, :kept] for heads in stored)
            found.append(F.scaled_dot_product_attention(q, k, v, is_causal=causal, **grouped))
        return found

    return run


def _flex(case: AttentionCase, there: Tensor) -> Callable[..., list[Tensor]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    width = int(case.mask[len("window(") : -1]) if case.mask.startswith("window") else case.keys

    def added(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + there[0, h, q, kv]

    def allowed(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        if case.kind == "encoder":
            return there[b, kv]
        return (kv <= q) & (kv > q - width)

    blocks = None
    if case.mask not in ("full", "bias"):
        batch = case.batch if case.mask == "padding" else None
        blocks = create_block_mask(allowed, batch, None, case.queries, case.keys, device="cpu")
    flex = torch.compile(flex_attention, dynamic=False)
    score_mod = added if case.mask == "bias" else None
    grouped = case.heads != case.kv_heads

    def run(qs: list[Tensor], ks: list[Heads], vs: list[Heads], there: Tensor) -> list[Tensor]:
        found = []
        for q, *stored in zip(qs, ks, vs, strict=True):
            k, v = (floats(heads, q.dtype) for heads in stored)
            found.append(flex(q, k, v, score_mod, block_mask=blocks, enable_gqa=grouped))
        return found

    return run


def _repeated(heads: Tensor, groups: int) -> Tensor:
    """As transformers' `repeat_kv`."""
    batch, count, length, width = heads.shape
    expanded = heads[:, :, None, :, :].expand(batch, count, groups, length, width)
    return expanded.reshape(batch, count * groups, length, width)


def _call(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Run:
    return lambda: function(*inputs)
