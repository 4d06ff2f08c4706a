"""Bound: how much faster than the dense baseline a kernel can be at most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.gpu import GPU

ROWS = (1, 16, 64, 256, 1024)
"""The m that bounds are given for."""


@dataclass(frozen=True)
class Bound:
    """The roofline of a kernel and of the dense baseline, at one m.

    Attributes:
        rows: m.
        seconds: that the kernel takes at least.
        dense_seconds: that the dense baseline takes at least.
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


def bounds(cost: Cost, dense: Cost, gpu: GPU, rows: Iterable[int] = ROWS) -> tuple[Bound, ...]:
    """The bounds of a kernel, one for each m.

    Args:
        cost: what a call moves and computes.
        dense: the same of the dense baseline.
        gpu: whose bandwidth and rates count.
        rows: the m.
    """

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
