"""solve: new parameters of linears that were calibrated together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sparsecompile.sparsification.gradients import Gradients
from sparsecompile.sparsification.method import Method, Problem
from sparsecompile.sparsification.moments import Moments
from sparsecompile.sparsification.report import SparsifiedWeight
from sparsecompile.sparsification.targets import Target

Solved = tuple[list[SparsifiedWeight], dict[str, Tensor]]
"""Rows of the report, and new parameters by name."""


def solve(
    targets: Sequence[Target],
    moments: Mapping[str, Moments],
    gradients: Mapping[str, Gradients],
    method: Method,
    correct_bias: bool,
) -> Solved:
    """What a method makes of linears; those with one input and one pattern are one problem.

    Args:
        targets: linears with one pattern each.
        moments: by the name of the linear; empty without calibration.
        gradients: by that name; empty where the method needs none.
        method: the method.
        correct_bias: see `sparsify`.
    """
    rows: dict[str, SparsifiedWeight] = {}
    parameters: dict[str, Tensor] = {}
    for group in _groups(targets, moments):
        read = moments.get(group[0].name)
        weights = [target.weight for target in group]
        problem = Problem(
            torch.cat([weight.float() for weight in weights]),
            tuple(len(weight) for weight in weights),
            group[0].pattern,
            None if read is None else read.second,
            _above([gradients[target.name] for target in group]) if gradients else None,
        )
        solved = method.solve(problem)
        parts = zip(group, solved.split(problem.rows), problem.errors(solved).tolist(), strict=True)
        for target, values, error in parts:
            new = values.to(target.weight)
            parameters[target.parameter("weight")] = target.turned(new)
            rows[target.name] = _row(target, new, error)
            bias = target.linear.bias
            if correct_bias and read is not None and bias is not None:
                off = (target.weight - new).double() @ read.mean
                parameters[target.parameter("bias")] = (bias + off).to(bias)
    return [rows[target.name] for target in targets], parameters


def _above(gradients: Sequence[Gradients]) -> Gradients:
    """The rows of all, as those of the weights."""
    return Gradients(
        torch.cat([each.mean for each in gradients]), torch.cat([each.square for each in gradients])
    )


def _groups(
    targets: Iterable[Target], moments: Mapping[str, Moments]
) -> Iterable[Sequence[Target]]:
    found: dict[tuple[object, ...], list[Target]] = {}
    for target in targets:
        key = (id(moments[target.name]) if moments else target.name, target.pattern)
        found.setdefault(key, []).append(target)
    return found.values()


def _row(target: Target, weight: Tensor, error: float) -> SparsifiedWeight:
    n, k = weight.shape
    return SparsifiedWeight(
        target.name,
        (n, k),
        str(weight.dtype).removeprefix("torch."),
        str(target.pattern),
        int(weight.count_nonzero()) / max(weight.numel(), 1),
        error,
        weight.nbytes,
        target.pattern.nbytes(weight),
    )
