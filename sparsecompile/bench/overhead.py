"""`bench overhead`: what a packed linear costs beside its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from sparsecompile.bench.environment import Environment
from sparsecompile.bench.timing import Timing, interleaved
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.codegen.cpp.native import load_native
from sparsecompile.compiler import Compiler
from sparsecompile.structures.n_m import NM

SIZE = 32
"""In and out features: so small that a call is all overhead."""
SAMPLE_SECONDS = 5e-3
COLD_ROUNDS = 10
"""Samples of one call for one of many calls: there is less of each to see."""


@dataclass(frozen=True)
class OverheadRow(Environment):
    """One overhead of one backend.

    Attributes:
        what: what was measured.
        candidate: `inductor` or `sparse`.
        us: microseconds: median, or the difference of two medians.
        mad: median absolute deviation in microseconds; of a difference, the sum of both.
        samples: samples that counted.
        dropped: samples that were disturbed.
        ratio: over Inductor's time.
        kernel: format and template of the packed linears, or why they are dense.
    """

    what: str
    candidate: str
    us: float
    mad: float
    samples: int
    dropped: int
    ratio: float
    kernel: str


def bench_overhead(
    machine: Machine, *, chain: int = 100, weights: int = 211, rounds: int = 20
) -> list[OverheadRow]:
    """Time one more call of a linear in a graph, and the look at all weights before each call.

    Args:
        machine: limits of this machine.
        chain: calls of the longer chain, at least 2.
        weights: how many a call looks at.
        rounds: samples of each.

    Raises:
        SparseCompileError: the backend failed.
    """
    with torch.no_grad():
        found = _marginal(chain, rounds)
        found += _freshness(weights, rounds)
    dense = {what: timing for what, name, timing, _ in found if name == "inductor"}
    return [
        OverheadRow(
            **vars(Environment.here(machine.cpu)),
            what=what,
            candidate=name,
            us=timing.seconds * 1e6,
            mad=timing.mad * 1e6,
            samples=timing.samples,
            dropped=timing.dropped,
            ratio=timing.seconds / dense[what].seconds,
            kernel=kernel,
        )
        for what, name, timing, kernel in found
    ]


_Found = list[tuple[str, str, Timing, str]]


def _marginal(chain: int, rounds: int) -> _Found:
    """One call more: the time of a chain less that of a single one, over the rest.

    Of the same linear, since Dynamo looks at every module before a call, whoever compiled it.
    """
    torch._dynamo.reset()
    compiler = _packing()
    x = torch.randn(1, SIZE)
    runs: dict[tuple[str, int], Callable[[], Any]] = {}
    for length in (1, chain):
        model = _Repeated(_linears(1)[0], length)
        for name, backend in (("inductor", "inductor"), ("sparse", compiler)):
            runs[name, length] = _call(torch.compile(model, backend=backend), x)
    timings = _timed(runs, rounds)
    what = f"one more call of {chain}, {SIZE}x{SIZE} float32, m=1"
    kernels = {"inductor": "", "sparse": _kernels(compiler)}
    return [
        (what, name, (timings[name, chain] - timings[name, 1]) / (chain - 1), kernel)
        for name, kernel in kernels.items()
    ]


def _freshness(weights: int, rounds: int) -> _Found:
    """What looks at the weights before a graph that does nothing, less that graph.

    It is called as Dynamo calls it. Against it stands a whole call of Inductor's graph, which has
    no such look.
    """
    torch._dynamo.reset()
    compiler = _packing()
    x = torch.randn(1, SIZE)
    model = nn.Sequential(*_linears(weights))
    calls: dict[str, Callable[[], Any]] = {}

    def nothing(module: GraphModule, inputs: Sequence[Any], layouts: object) -> Callable[..., Any]:
        return lambda *args: (x,)

    def looking(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        checked = compiler.compile(module, inputs, nothing)
        unchecked = nothing(module, inputs, ())
        calls.update(checked=lambda: checked(*inputs), unchecked=lambda: unchecked(*inputs))
        return checked

    torch.compile(model, backend=looking)(x)
    whole = _call(torch.compile(model, backend="inductor"), x)
    runs = {("inductor", weights): whole, **{(name, weights): calls[name] for name in calls}}
    timings = _timed(runs, rounds)
    cold = interleaved(
        calls, rounds=COLD_ROUNDS * rounds, ready=partial(_evict, model, load_native().evict)
    )
    what = f"freshness of {weights} weights{{}}; inductor: its whole call"
    looks = {
        "": timings["checked", weights] - timings["unchecked", weights],
        " out of the caches": cold["checked"] - cold["unchecked"],
    }
    found: _Found = []
    for where, look in looks.items():
        found.append((what.format(where), "inductor", timings["inductor", weights], ""))
        found.append((what.format(where), "sparse", look, _kernels(compiler)))
    return found


def _evict(model: nn.Module, evict: Callable[[Tensor], None]) -> None:
    for parameter in model.parameters():
        evict(parameter)


def _packing() -> Compiler:
    """A Compiler that packs layers one by one, although so small ones may be faster dense."""
    return Compiler(tune="off", passes={"without": ["fuse_low_rank"]})


class _Repeated(nn.Module):
    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.layer(x)
        return x


def _linears(count: int) -> list[nn.Module]:
    """Linears, pruned to 2:4."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layer = nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False)
        layer.weight *= NM(2, 4).prune(layer.weight)
        layers.append(layer)
    return layers


def _call(function: Callable[..., Any], x: Tensor) -> Callable[[], Any]:
    return lambda: function(x)


def _timed(
    runs: Mapping[tuple[str, int], Callable[[], Any]], rounds: int
) -> dict[tuple[str, int], Timing]:
    for run in runs.values():
        run()
    named = {f"{name} {length}": run for (name, length), run in runs.items()}
    found = interleaved(named, rounds=rounds, least=SAMPLE_SECONDS)
    return dict(zip(runs, found.values(), strict=True))


def _kernels(compiler: Compiler) -> str:
    """What the linears of all graphs became, each outcome once."""
    outcomes = (
        f"{node.format} {node.kernel.template}" if node.kernel else f"dense: {node.reason}"
        for node in compiler.report.nodes
    )
    return ", ".join(dict.fromkeys(outcomes))
