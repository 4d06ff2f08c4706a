"""Attention as it is defined, and cases of kernels to hold against it, drawn in pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from itertools import combinations, product

import torch
from kernel_cases import covering
from torch import Tensor

from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.testing.laws import assert_no_worse

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HEADS = ((16, 16), (40, 24), (64, 64))
"""Widths of keys and values."""
MASKS = ("none", "causal", "window", "scanned", "listed", "added", "added float32", "bias")


@dataclass(frozen=True)
class Case:
    """One call of an attention."""

    dtype: torch.dtype
    heads: tuple[int, int]
    groups: int
    softcap: float
    queries: int
    keys: int
    mask: str
    stored: torch.dtype | None = None

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(self.dtype, *self.heads, self.groups, self.softcap != 0, self.stored)

    def __str__(self) -> str:
        return f"{self.spec} {self.queries}x{self.keys} {self.mask}"


def cases() -> list[Case]:
    """So few that all pairs occur."""
    sizes = ((1, 3), (0.0, 5.0), (1, 7, 17, 64, 70), (70, 130))
    every = product(DTYPES, HEADS, *sizes, MASKS, (None, torch.int8))
    cases = (Case(*values) for values in every)
    # On GPUs integers are for queries of 16 bits.
    taken = (c for c in cases if c.stored is None or c.dtype != torch.float32)
    return covering(taken, _pairs)


def _pairs(case: Case) -> list[tuple[object, ...]]:
    return list(combinations(enumerate(astuple(case)), 2))


@dataclass(frozen=True)
class Call:
    """Arguments of a call.

    Attributes:
        q: `[2, 2 * groups, queries, d]`.
        k: `[2, 2, keys, d]`.
        v: `[2, 2, keys, dv]`.
        mask: `[2 or 1, 1, queries, keys]` bool; None for all keys.
        low: of intervals, `[1, 1, queries]`.
        bias: what is added to scores.
        k_scale: of rows of keys that are int8, of any shape that fits.
        v_scale: the same of values.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    low: Tensor | None = None
    bias: Tensor | None = None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def exact(self, case: Case, dtype: torch.dtype) -> Tensor:
        """The definition, in a dtype: rows without a key are zeros."""
        k, v = self.k.to(dtype), self.v.to(dtype)
        if self.k_scale is not None and self.v_scale is not None:
            k, v = k * self.k_scale.to(dtype), v * self.v_scale.to(dtype)
        k, v = (t.repeat_interleave(case.groups, 1) for t in (k, v))
        scores = self.q.to(dtype) @ k.mT * case.heads[0] ** -0.5
        if case.softcap:
            scores = torch.tanh(scores / case.softcap) * case.softcap
        if self.bias is not None:
            scores = scores + self.bias.to(dtype)
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, -torch.inf)
        weights = torch.softmax(scores, -1, dtype=max(torch.float32, dtype, key=_bytes))
        return weights.nan_to_num(0).to(dtype) @ v


def _bytes(dtype: torch.dtype) -> int:
    return dtype.itemsize


def call_of(case: Case) -> Call:
    """Random arguments; k and v are parts of longer caches, and q is as a projection gives it."""
    call = _floats(case)
    if case.stored is None:
        return call
    # Those of values are one for each head.
    k, v = (torch.randint(-128, 128, t.shape, dtype=case.stored) for t in (call.k, call.v))
    sizes = ((2, 2, case.keys, 1), (1, 2, 1, 1))
    k_scale, v_scale = (((torch.rand(size) - 0.3) / 64).to(case.dtype) for size in sizes)
    return replace(call, k=k, v=v, k_scale=k_scale, v_scale=v_scale)


def _floats(case: Case) -> Call:
    torch.manual_seed(0)
    (d, dv), queries, keys = case.heads, case.queries, case.keys
    q = torch.randn(2, queries, 2 * case.groups, d).to(case.dtype).transpose(1, 2)
    k, v = (torch.randn(2, 2, keys + 9, w).to(case.dtype)[:, :, :keys] for w in (d, dv))
    query, key = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    causal = (key <= query)[None, None]
    if case.mask in ("causal", "window"):
        low = (query.flatten() - 9).clamp(min=0) if case.mask == "window" else 0 * query.flatten()
        mask = causal & (key >= low[:, None])
        return Call(q, k, v, mask, low.int()[None, None])
    if case.mask in ("scanned", "listed"):
        mask = causal & (torch.rand(2, 1, queries, keys) < 0.3)
        mask[..., queries // 2, :] = False
        mask[:, :, :, 64:128] |= queries > 60
        return Call(q, k, v, mask)
    if case.mask == "none":
        return Call(q, k, v)
    dtype = torch.float32 if "float32" in case.mask else case.dtype
    bias = torch.randn(2, 1, queries, keys)
    if case.mask != "bias":
        # Some tiles only drop keys, some add more; of one query every key is as small as it can be.
        bias[..., 64:] = 0
        bias = torch.where(causal, bias, -torch.inf)
        bias[..., queries // 2, :] = torch.finfo(dtype).min
        bias[1, :, -1, 2:] = -torch.inf
    return Call(q, k, v, bias=bias.to(dtype))


def check_case(case: Case, run: Callable[[Call], Tensor]) -> None:
    """What runs a call is at most twice as far from the definition as torch is."""
    call = call_of(case)
    exact, eager = call.exact(case, torch.float64), call.exact(case, case.dtype)
    assert_no_worse(run(call), eager, exact)
