"""Kept tiles in graphs where a pattern is asked for; see `tiles.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.operators.attention import asked_mask  # noqa: F401  # the op
from sparsecompile.operators.attention.asked import ends_of, named, number_of
from sparsecompile.operators.attention.keys import first_position, kept_keys
from sparsecompile.operators.attention.tiles import interval_tiles


def row_tiles(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, pattern: str) -> Tensor:
    """The kept keys of a few queries, by the definition: one kernel of Inductor's and a scan."""
    kept = kept_keys(q, k, mask, causal, pattern)
    return torch.ops.sparsecompile.scan_mask(kept)  # type: ignore[no-any-return]


def asked_interval_tiles(
    q: Tensor,
    k: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    keep: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    causal: bool,
    pattern: str,
) -> Tensor:
    """The kept tiles where own mask and pattern both keep intervals.

    Args:
        q: `[batch, heads, queries, d]`, of which the size counts.
        k: `[batch, kv heads, keys, d]`, of which the size counts.
        low: with the other ends as `Ends` has it; None where there is no mask.
        high: likewise.
        keep: likewise.
        query_ids: likewise.
        key_ids: likewise.
        causal: whether query `i` attends to the keys up to `i`, where there is no mask.
        pattern: name of what is asked for.
    """
    queries, keys = q.shape[2], k.shape[2]
    if low is None or high is None:
        low = torch.zeros(1, 1, queries, dtype=torch.int32)
        ends = torch.arange(1, queries + 1, dtype=torch.int32)[None, None]
        high = ends.clamp(max=keys) if causal else torch.full_like(low, keys)
    key = torch.arange(keys)
    last = (low[..., -1:] <= key) & (key < high[..., -1:])
    if keep is not None:
        last = last & keep[:, None]
    if query_ids is not None and key_ids is not None:
        last = last & (query_ids[:, None, -1:] == key_ids[:, None])
    asked = ends_of(named(pattern), first_position(last, queries) + torch.arange(queries))
    if asked is None:
        raise ValueError(f"{pattern} keeps no intervals")
    begin, end = (None if each is None else each.clamp(0, keys).int() for each in asked)
    low = low if begin is None else torch.maximum(low, begin)
    high = high if end is None else torch.minimum(high, end)
    return interval_tiles(low, high, keep, query_ids, key_ids, q, k)


def asked_tiles(q: Tensor, k: Tensor, own: Tensor | None, pattern: str) -> Tensor:
    """The kept tiles of own ones, None for all, that a pattern keeps, too."""
    op = torch.ops.sparsecompile.asked_mask
    return op(q, k, own, number_of(pattern))  # type: ignore[no-any-return]
