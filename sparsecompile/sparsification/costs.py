"""Costs: what weights cost with their patterns, in values, bytes or milliseconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsecompile.compiler import Compiler
from sparsecompile.sparsification.pattern import DENSE, Pattern
from sparsecompile.sparsification.report import SparsifiedWeight


class Costs:
    """What weights cost.

    Args:
        unit: see `Budget`.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._measured: dict[object, float] = {}

    def of(self, row: SparsifiedWeight, weight: Tensor) -> float:
        """Of a weight that keeps a pattern."""
        if self._unit == "density":
            return row.kept * weight.numel()
        if self._unit == "bytes":
            return row.packed_bytes
        return self._time(weight, row.pattern)

    def dense(self, weight: Tensor) -> float:
        """Of a weight as it is."""
        if self._unit == "density":
            return weight.numel()
        if self._unit == "bytes":
            return weight.nbytes
        return self._time(weight, DENSE)

    def _time(self, weight: Tensor, pattern: str) -> float:
        key = (pattern, weight.shape, weight.dtype)
        if key not in self._measured:
            self._measured[key] = 1e3 * seconds(weight, pattern)
        return self._measured[key]


def seconds(weight: Tensor, pattern: str) -> float:
    """What a linear takes for one row: measured by the tuner, or before.

    Args:
        weight: `[n, k]`, with the zeros of the pattern.
        pattern: dense is torch's own linear, else whatever the tuner chooses.
    """
    n, k = weight.shape
    linear = nn.Linear(k, n, bias=False).to(weight)
    linear.weight.copy_(weight)
    if pattern == DENSE:
        # With zeros there is a race, in which torch's own linear takes part.
        linear.weight[:, ::2] = 0
    found = pattern.rpartition("/")[2]
    quantize = found.replace("int8", "int8-weight-only") if found.startswith("int") else None
    compiler = Compiler(tune="fast", quantize=quantize, low_rank=Pattern.parse(pattern).rank)
    total = 0.0
    # Factors are two linears.
    for node in compiler.explain(linear, torch.zeros(1, k).to(weight)).nodes:
        trials = [trial for trial in node.trials if trial.rows == 1]
        serving = [t for t in trials if (t.is_baseline if pattern == DENSE else t.chosen)]
        total += min(trial.seconds for trial in serving)
    return total
