"""Magnitude pruning: which values of a tensor are the smallest."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def magnitudes(weight: Tensor) -> Tensor:
    """Integers in the order of the magnitudes: the bits without the sign; NaN is the largest.

    Args:
        weight: floats of 16, 32 or 64 bits, contiguous.

    Returns:
        Integers of the same width and shape.
    """
    return weight.abs().view(_BITS[weight.dtype.itemsize])


def smallest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` smallest values, which of equal ones are the first.

    Args:
        values: `[v]`, none of them NaN.
        count: at most v.

    Returns:
        `[v]` bool with exactly `count` set.
    """
    if not count:
        return torch.zeros_like(values, dtype=torch.bool)
    last = values.kthvalue(count).values
    mask = values < last
    equal = (values == last).nonzero().squeeze(1)
    mask[equal[: count - int(mask.sum())]] = True
    return mask


def largest_of_groups(values: Tensor, n: int) -> Tensor:
    """Mask of the `n` largest values of every row, which of equal ones are the first.

    Every value is compared with every other of its row: faster than sorting many short rows.

    Args:
        values: `[rows, m]`, none of them NaN.
        n: at most m.

    Returns:
        `[rows, m]` bool.
    """
    columns = list(values.t().contiguous())
    above = [torch.zeros_like(column, dtype=torch.uint8) for column in columns]
    for j in range(len(columns)):
        for i in range(j):
            first = columns[i] >= columns[j]
            above[j] += first
            above[i] += ~first
    return torch.stack([count < n for count in above], 1)
