"""What `bench attention` gives to every candidate, and how much of it there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from sparsecompile.bench.attention.cases import AttentionCase, shapes_of
from sparsecompile.kernels.prologue import rounded_rows

Heads = Tensor | tuple[Tensor, Tensor]
"""Keys or values: `[batch, heads, keys, width]`, or int8 and the scale of each row."""


def inputs_of(case: AttentionCase) -> tuple[list[Tensor], list[Heads], list[Heads], Tensor]:
    """q, k and v of every layer, and what says which keys count: bool, `[batch, keys]`.

    Or what is added to the scores of all layers, `[1, heads, queries, keys]`.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case.dtype)
    stacks = [
        [torch.randn(shape, generator=generator).to(dtype) for _ in range(case.layers)]
        for shape in shapes_of(case)
    ]
    qs = stacks[0]
    ks, vs = ([_stored(heads, case.stored) for heads in stack] for stack in stacks[1:])
    if case.mask == "bias":
        bias = torch.randn(1, case.heads, case.queries, case.keys, generator=generator)
        return qs, ks, vs, bias.to(dtype)
    lengths = torch.linspace(case.context, case.keys, case.batch).long()
    if case.kind == "decode":
        lengths = torch.full((case.batch,), case.context)
    there = torch.arange(case.keys) < lengths[:, None]
    return qs, ks, vs, there


def floats(heads: Heads, dtype: torch.dtype) -> Tensor:
    """As models read what they have stored."""
    return heads if isinstance(heads, Tensor) else (heads[0] * heads[1]).to(dtype)


def mask_of(case: AttentionCase, there: Tensor) -> Tensor | None:
    """The mask, `[batch or 1, 1, queries, keys]` bool; or what is added."""
    if case.mask == "bias":
        return there
    keys = torch.arange(case.keys)
    if case.kind == "prefill":
        queries = torch.arange(case.keys)[None, None, :, None]
        mask = keys[None, None, None, :] <= queries
        if case.mask.startswith("window"):
            width = int(case.mask[len("window(") : -1])
            mask = mask & (keys[None, None, None, :] > queries - width)
        return mask.expand(case.batch, -1, case.keys, case.keys)
    if case.mask == "full":
        return None
    return there[:, None, None, :].expand(-1, -1, case.queries, -1)


def work(case: AttentionCase) -> tuple[int, int]:
    """Places that count in all layers, and bytes that are read and written at least."""
    *_, there = inputs_of(replace(case, layers=1))
    mask = mask_of(case, there)
    counted = case.batch * case.queries * case.keys
    if mask is not None and mask.dtype == torch.bool:
        counted = int(mask.sum())
    rows = case.batch * case.heads * case.queries * case.layers
    moved = 2 * rows * case.width * getattr(torch, case.dtype).itemsize + bytes_of_keys(case)
    return counted * case.heads * case.layers, moved


def bytes_of_keys(case: AttentionCase) -> int:
    """Of keys and values that count and of their scales, in all layers."""
    kept = case.context if case.kind == "decode" else case.keys
    scale = torch.float32.itemsize if case.stored else 0
    row: int = case.width * getattr(torch, case.stored or case.dtype).itemsize + scale
    return 2 * case.batch * case.kv_heads * kept * row * case.layers


def doubled(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same in float64."""
    found: tuple[Any, ...] = _pytree.tree_map(
        lambda t: t.double() if t.is_floating_point() else t, inputs
    )
    return found


def _stored(heads: Tensor, dtype: str) -> Heads:
    if not dtype:
        return heads
    rounded, scale = rounded_rows(heads)
    return rounded.to(getattr(torch, dtype)), scale
