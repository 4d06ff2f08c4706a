"""`attention`: the node that a pass makes of an attention, which is its definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.graph.pattern import Call
from sparsecompile.operators.attention.keys import kept_keys

SDPA, GROUPED, PRODUCTS = "sdpa", "sdpa, grouped", "products"
"""How models spell it: torch's function, the same that repeats keys itself, and products, which
have the scores in memory."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float,
    causal: bool,
    spelling: str,
    pattern: str = "",
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Tensor:
    """What an attention computes: a node of the graph until it gets its kernel.

    Args:
        q: `[batch, heads, queries, d]`.
        k: `[batch, kv heads, keys, d]`; query head `h` reads key head `h / (heads / kv heads)`.
        v: `[batch, kv heads, keys, dv]`.
        mask: bool, True where a query attends to a key, or what is added to the scores; of a shape
            that expands to `[batch, heads, queries, keys]`. None for all keys.
        scale: of the products.
        softcap: scores are `softcap * tanh(score / softcap)`; 0 for as they are.
        causal: whether query `i` attends to the keys up to `i` alone.
        spelling: how the model computes it: `SDPA`, `GROUPED` or `PRODUCTS`.
        pattern: what else has to keep a key, see `kept_keys`; then what is added to scores says
            which keys count, and a query without any gets zeros. Empty for nothing.
        k_scale: of keys that are int8, `[batch or 1, kv heads or 1, keys or 1, 1]`; else None.
        v_scale: the same of values.

    Returns:
        `[batch, heads, queries, dv]`.
    """
    k, v = _dequantized(k, k_scale, q.dtype), _dequantized(v, v_scale, q.dtype)
    if pattern:
        mask, causal = kept_keys(q, k, mask, causal, pattern), False
    groups = q.shape[1] // k.shape[1]
    if spelling != GROUPED and groups > 1:
        k, v = _repeated(k, groups), _repeated(v, groups)
    if spelling != PRODUCTS:
        grouped = {"enable_gqa": True} if spelling == GROUPED else {}
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale, **grouped
        )
    scores = torch.matmul(q, k.transpose(2, 3)) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        is_bool = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if is_bool else scores + mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    if mask is not None and mask.dtype == torch.bool:
        weights = weights.masked_fill(~mask, 0)
    return torch.matmul(weights, v)


ATTENTION = Call(
    (attention,),
    (
        *("q", "k", "v", "mask", "scale", "softcap", "causal", "spelling", "pattern"),
        *("k_scale", "v_scale"),
    ),
)
"""Pattern of an attention that has no kernel yet."""


def _dequantized(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rows times their scales, rounded once."""
    if scale is None:
        return stored
    return (stored.to(torch.promote_types(scale.dtype, torch.float32)) * scale).to(dtype)


def _repeated(heads: Tensor, groups: int) -> Tensor:
    """Each head as often as query heads read it."""
    batch, count, length, width = heads.shape
    expanded = heads[:, :, None].expand(batch, count, groups, length, width)
    return expanded.reshape(batch, count * groups, length, width)
