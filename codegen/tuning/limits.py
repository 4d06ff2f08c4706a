"""Limits: what a device can do at most, for the cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecompile.kernels.cost import Cost


@dataclass(frozen=True)
class Limits:
    """The roofline of a device.

    Attributes:
        bandwidth: bytes a second from memory.
        rates: operations a second by `Cost.kind`.
    """

    bandwidth: float
    rates: Mapping[str, float]

    def seconds(self, cost: Cost, rows: int, relative_rate: float = 1.0) -> float:
        """What a call with this many rows takes at least; see `Packer.relative_rate`."""
        return cost.seconds(rows, self.bandwidth, self.rates[cost.kind] * relative_rate)
