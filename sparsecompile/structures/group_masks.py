"""Masks of groups of columns, as integers: bit p is of a group's column p."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor


@lru_cache
def all_masks(n: int, m: int) -> Tensor:
    """All masks of n in m bits, ascending: `[C(m, n)]` int64."""
    return torch.tensor(sorted(sum(1 << p for p in c) for c in combinations(range(m), n)))


def fill(masks: Tensor, n: int, m: int) -> Tensor:
    """Set the lowest free bits of masks with fewer than n bits until they have n."""
    missing = n - count_bits(masks, m)
    for p in range(m):
        free = ((masks >> p) & 1 == 0) & (missing > 0)
        masks = masks | (free.long() << p)
        missing = missing - free.long()
    return masks


def count_bits(masks: Tensor, m: int) -> Tensor:
    """How many of its m bits each mask has set."""
    count = masks & 1
    for p in range(1, m):
        count = count + ((masks >> p) & 1)
    return count


def group_masks(mask: Tensor, m: int, dtype: torch.dtype) -> Tensor:
    """`[rows, groups * m]` uint8 of 0 and 1 to one integer a group: `[rows, groups]`."""
    total = mask[:, ::m].to(dtype, copy=True)
    for p in range(1, m):
        total |= mask[:, p::m].to(dtype) << p
    return total
