"""Kept tiles in graphs: functions that Inductor traces through, of sizes that may vary."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_tiles(q: Tensor, k: Tensor) -> Tensor:
    """The kept tiles where query `i` attends to the keys up to `i`.

    Args:
        q: `[batch, heads, queries, d]`, of which the size counts.
        k: `[batch, kv heads, keys, d]`, of which the size counts.
    """
    high = torch.arange(1, q.shape[2] + 1, dtype=torch.int32, device=q.device)[None, None]
    return interval_tiles(torch.zeros_like(high), high, None, None, None, q, k)


def interval_tiles(
    low: Tensor,
    high: Tensor,
    keep: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    q: Tensor,
    k: Tensor,
) -> Tensor:
    """The kept tiles of `Ends` of a mask; q and k, of four dimensions, for their lengths."""
    # One row of a mask may be that of all queries.
    low, high = (end.expand(*end.shape[:2], q.shape[2]) for end in (low, high))
    op = torch.ops.sparsecompile.interval_mask
    return op(low, high, keep, query_ids, key_ids, k.shape[2])  # type: ignore[no-any-return]


def scanned_tiles(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The kept tiles of a mask `[batch or 1, heads or 1, queries or 1, keys or 1]`."""
    whole = mask.expand(mask.shape[0], mask.shape[1], q.shape[2], k.shape[2])
    return torch.ops.sparsecompile.scan_mask(whole)  # type: ignore[no-any-return]
