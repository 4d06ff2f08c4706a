"""Bound: how much faster than the dense linear a kernel can be at most, by bytes and operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from sparsecompile.formats.symbols import m
from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.gpu import GPU

ROWS = (1, 16, 64, 256, 1024)
"""The m that bounds are given for."""


@dataclass(frozen=True)
class Bound:
    """The roofline of a kernel and of the dense linear, at one m.

    Attributes:
        rows: m.
        seconds: that the kernel takes at least.
        dense_seconds: that the dense linear takes at least.
        limiter: what the kernel waits for: `memory` or `arithmetic`.
    """

    rows: int
    seconds: float
    dense_seconds: float
    limiter: str

    @property
    def speedup(self) -> float:
        """The lead over dense that no measurement can pass if dense reaches its own bound."""
        return self.dense_seconds / self.seconds


def dense_cost(shape: tuple[int, int], dtype: torch.dtype) -> Cost:
    """What the dense linear has to move and compute for a weight `(n, k)`."""
    n, k = shape
    moved = (n * k + m * (n + k)) * dtype.itemsize
    return Cost(moved, 2 * m * n * k, str(dtype).removeprefix("torch."))


def bounds(
    cost: Cost,
    shape: tuple[int, int],
    dtype: torch.dtype,
    gpu: GPU,
    rows: Iterable[int] = ROWS,
) -> tuple[Bound, ...]:
    """The bounds of a kernel, one for each m.

    Args:
        cost: what a call moves and computes.
        shape: `(n, k)` of the weight.
        dtype: of the dense weight and the activations.
        gpu: whose bandwidth and rates count.
        rows: the m.
    """
    dense = dense_cost(shape, dtype)

    def bound(count: int) -> Bound:
        rate, bandwidth = gpu.rates[cost.kind], gpu.bandwidth
        is_memory = cost.moved(count) / bandwidth >= cost.computed(count) / rate
        return Bound(
            count,
            cost.seconds(count, bandwidth, rate),
            dense.seconds(count, bandwidth, gpu.rates[dense.kind]),
            "memory" if is_memory else "arithmetic",
        )

    return tuple(bound(count) for count in rows)
