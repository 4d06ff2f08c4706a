"""Ends: what kernels read of a recognised mask, as tensors or as the nodes that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from sparsecompile.masks.documents import Documents
from sparsecompile.masks.interval_mask import IntervalMask
from sparsecompile.masks.intervals import Intervals
from sparsecompile.masks.padding import Padding
from sparsecompile.masks.pattern import MaskPattern

T = TypeVar("T")


@dataclass(frozen=True)
class Ends(Generic[T]):
    """`low <= kv < high`, and `keep[b, kv]`, and `query_ids[b, q] == key_ids[b, kv]`.

    Axes that nothing depends on have size 1, but for that of the queries, which has the mask's:
    1 where it has one row for all.

    Attributes:
        low: `[batch or 1, heads or 1, q]` int32; may be below 0.
        high: likewise; may be above the number of keys.
        keep: `[batch or 1, kv]` bool, or None.
        query_ids: `[batch or 1, q]` int64, or None.
        key_ids: `[batch or 1, kv]` int64, or None.
    """

    low: T
    high: T
    keep: T | None = None
    query_ids: T | None = None
    key_ids: T | None = None


def pattern(ends: Ends[Tensor]) -> MaskPattern:
    """The same as a pattern, of a matrix without offsets."""
    found: MaskPattern = IntervalMask(Intervals(ends.low, ends.high))
    if ends.keep is not None:
        found = found & Padding(ends.keep)
    if ends.key_ids is not None:
        found = found & Documents(ends.key_ids, ends.query_ids)
    return found
