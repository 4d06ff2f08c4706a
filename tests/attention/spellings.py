"""Attention as models write it: each takes q, k, v and a mask, and returns `[b, h, s, d]`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Spelling:
    """How a model writes attention.

    Attributes:
        name: of the function.
        run: the function.
        mask: what the report says of its mask.
        kv_heads: of its keys, where it has four heads.
        has_mask: `bool`, `added` or empty.
    """

    name: str
    run: Attention
    mask: str
    kv_heads: int = 4
    has_mask: str = ""


SPELLINGS: list[Spelling] = []


def spelling(mask: str, kv_heads: int = 4, has_mask: str = "") -> Callable[[Attention], Attention]:
    def add(run: Attention) -> Attention:
        SPELLINGS.append(Spelling(run.__name__, run, mask, kv_heads, has_mask))
        return run

    return add


def repeat_kv(heads: Tensor, groups: int = 2) -> Tensor:
    batch, count, length, width = heads.shape
    expanded = heads[:, :, None, :, :].expand(batch, count, groups, length, width)
    return expanded.reshape(batch, count * groups, length, width)


@spelling("none")
def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


@spelling("is_causal")
def causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)


@spelling("is_causal", kv_heads=2)
def grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@spelling("scanned", kv_heads=2, has_mask="bool")
def repeated(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, repeat_kv(k), repeat_kv(v), attn_mask=mask)


@spelling("scanned", kv_heads=2, has_mask="bool")
def repeated_by_unsqueeze(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, heads, length, width = k.shape
    k = k.unsqueeze(2).expand(batch, heads, 2, length, width).reshape(q.shape[:2] + k.shape[2:])
    v = torch.repeat_interleave(v, 2, dim=1)
    return F.scaled_dot_product_attention(q, k.contiguous(), v, attn_mask=mask)


@spelling("scanned, added", has_mask="added")
def with_bias(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@spelling("scanned", has_mask="bool")
def two_dimensions(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[0, 0])


@spelling("scanned, added", kv_heads=2, has_mask="added")
def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    k, v = repeat_kv(k), repeat_kv(v)
    weights = torch.matmul(q, k.transpose(2, 3)) * 0.25
    weights = weights + mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    weights = F.dropout(weights, p=0.1, training=False)
    return torch.matmul(weights, v)


@spelling("none")
def operators(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return ((q @ k.mT) / math.sqrt(q.shape[-1])).softmax(-1) @ v


@spelling("scanned, added", has_mask="bool")
def filled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1)).masked_fill(mask == 0, float("-inf"))
    return torch.nn.Softmax(dim=-1)(scores) @ v


@spelling("scanned, added", has_mask="bool")
def filled_by_where(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    least = torch.finfo(q.dtype).min
    scores = torch.where(
        mask, torch.matmul(q, k.transpose(2, 3)), torch.tensor(least, dtype=q.dtype)
    )
    of_keys, of_places = k[:, :, None, :, 0], mask.to(q.dtype)
    return torch.matmul(F.softmax(scores + of_keys + of_places, -1), v)


@spelling("scanned, added", has_mask="added")
def capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)) * 0.2
    scores = torch.tanh(scores / 5.0) * 5.0
    return torch.matmul(F.softmax(scores + mask, dim=-1), v)
