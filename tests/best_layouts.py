"""Measurements that are made up, with another best layout for few rows than for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from packing import Packing
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sparsecompile.lowering.slots import Layout
from sparsecompile.report.facts import KernelChoice, NodeReport
from sparsecompile.weights.cache import PACK_CACHE

SECONDS = {
    1: {"strips": 0.1, "generic": 4.0, "dense": 5.0},
    128: {"strips": 3.0, "generic": 1.0, "dense": 5.0},
}
"""The generic layout is best for 128 rows alone, that of strips for one row, and for both."""


def seconds(name: str, rows: int) -> float:
    times = SECONDS[1 if rows < 64 else 128]
    return times.get(name.split()[0], 9.0) * (2.0 if name.endswith("decode") and rows > 1 else 1.0)


def compiled(model: nn.Module, **options: Any) -> tuple[Callable[..., Any], Packing]:
    """A graph for each m."""
    backend = Packing(tune="full", **options)
    return torch.no_grad()(torch.compile(model, backend=backend, dynamic=False)), backend


def layouts_of(weight: Tensor) -> list[Layout]:
    """The copies that there are of a weight."""
    entries = PACK_CACHE._memory(weight).made.values()
    return [entry.value for entry in entries if isinstance(entry.value, Layout)]


def nodes(backend: Packing, graph: int) -> tuple[NodeReport, ...]:
    return backend.compiler.report.graph_reports[graph].nodes


def kernel(backend: Packing, graph: int) -> KernelChoice:
    (node,) = nodes(backend, graph)
    assert node.kernel is not None
    return node.kernel


def runs_dense(fast: Callable[..., Any], x: Tensor) -> bool:
    """Whether a call reaches torch's own linear."""
    with profile(activities=[ProfilerActivity.CPU]) as calls:
        fast(x)
    return any(event.key == "aten::linear" for event in calls.key_averages())
