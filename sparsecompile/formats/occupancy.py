"""Occupancy: a dense weight, and what structures want to know of its zeros."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.errors import Reject

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Occupancy:
    """A dense weight `[n, k]` together with what several structures want to know of its zeros.

    Counting is done once and shared by every structure that is asked to find itself.
    A negative zero counts as zero: `weight * mask` leaves one wherever a negative value was cut.

    Args:
        weight: `[n, k]`, float32, bfloat16 or float16, any strides, on the CPU.

    Raises:
        Reject: the weight is not two-dimensional or has another dtype.
    """

    def __init__(self, weight: Tensor) -> None:
        if weight.dim() != 2:
            raise Reject(f"the weight has {weight.dim()} dimensions, 2 are needed")
        if weight.dtype not in FLOAT_DTYPES:
            raise Reject(f"the weight is {weight.dtype}, float32, bfloat16 or float16 is needed")
        self.weight = weight.detach()
        self._group_counts: dict[int, Tensor] = {}
        self._group_ranges: dict[int, tuple[int, int]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """`(n, k)`."""
        return self.weight.shape[0], self.weight.shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """`[n, k]` bool, contiguous: True where a value is kept (not zero; NaN is kept)."""
        return (self.weight != 0).contiguous()

    @cached_property
    def kept(self) -> int:
        """How many values are not zero."""
        return int(self.group_counts(8).sum())

    @property
    def density(self) -> float:
        """Share of values that are not zero; 0 for an empty weight."""
        return self.kept / max(self.mask.numel(), 1)

    def group_counts(self, m: int) -> Tensor:
        """Kept values in each group of `m` consecutive columns: `[n, ceil(k / m)]` uint8.

        Args:
            m: group size, at most 32; a ragged last group counts as if padded with zeros.
        """
        if m not in self._group_counts:
            half = self._group_counts.get(m // 2) if m % 2 == 0 else None
            cells, size = (half, 2) if half is not None else (self.mask.view(torch.uint8), m)
            self._group_counts[m] = _sum_groups(cells, size)
        return self._group_counts[m]

    def group_range(self, m: int) -> tuple[int, int]:
        """The smallest and the largest of `group_counts(m)`; `(0, 0)` of an empty weight."""
        if m not in self._group_ranges:
            counts = self.group_counts(m)
            low, high = counts.aminmax() if counts.numel() else (0, 0)
            self._group_ranges[m] = int(low), int(high)
        return self._group_ranges[m]


_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _sum_groups(cells: Tensor, size: int) -> Tensor:
    """Sum `size` neighbours in each row of a contiguous uint8 tensor, padded to whole groups.

    Sums stay below 128. Two, four or eight neighbours are read as one integer: multiplied by
    `0x0101...` its highest byte is the sum of its bytes.
    """
    if cells.shape[1] % size:
        cells = torch.nn.functional.pad(cells, (0, size - cells.shape[1] % size))
    if size in _WORDS and cells.numel():
        bits = 8 * (size - 1)
        ones = sum(1 << 8 * i for i in range(size))
        # As one row: one that is a transposed column has no stride that words could have.
        words = cells.view(-1).view(_WORDS[size])
        return (words * ones >> bits).to(torch.uint8).view(len(cells), -1)
    total = cells[:, ::size].clone()
    for offset in range(1, size):
        total += cells[:, offset::size]
    return total
