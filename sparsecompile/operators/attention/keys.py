"""Which keys queries attend to where a pattern is asked for: the definition."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.masks.block_mask import FEW_QUERIES
from sparsecompile.masks.choice import Choice
from sparsecompile.operators.attention.asked import named


def kept_keys(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, pattern: str) -> Tensor:
    """What both the model's own mask and the pattern keep.

    The last query is at the position of the last key that its own mask keeps for it in any entry
    of the batch, which with static caches is not the last key; the first is at 0 or behind it.
    Nothing is chosen for up to `FEW_QUERIES` queries, for which that would cost more than it saves.

    Args:
        q: `[batch, heads, queries, d]`.
        k: `[batch, kv heads, keys, d]`.
        mask: bool, or what is added to scores, of which exactly 0 counts; None for all keys.
        causal: whether query `i` attends to the keys up to `i` alone.
        pattern: name of what is asked for.

    Returns:
        `[batch or 1, heads or 1, queries, keys]` bool.

    Raises:
        OptionError: a predicate raises something.
    """
    queries, keys = q.shape[2], k.shape[2]
    own = torch.ones(1, 1, queries, keys, dtype=torch.bool)
    if causal:
        own = own.tril()
    if mask is not None:
        kept = mask if mask.dtype == torch.bool else mask == 0
        own = own & kept
    first = first_position(own[:, :, -1], queries)
    asked = named(pattern)
    if isinstance(asked, Choice):
        return own & asked.choose(q, k, own, first) if queries > FEW_QUERIES else own
    b, h = (torch.arange(size) for size in q.shape[:2])
    position = first + torch.arange(queries)
    return own & asked.keeps(
        b[:, None, None, None], h[:, None, None], position[:, None], torch.arange(keys)
    )


def first_position(last: Tensor, queries: int) -> Tensor:
    """The position of the first query.

    Args:
        last: the keys that the last query's own mask keeps: `[..., keys]` bool.
        queries: how many there are.

    Returns:
        int64, without dimensions.
    """
    place = torch.where(last, torch.arange(last.shape[-1]), -1).amax()
    return (place - (queries - 1)).clamp(min=0)
