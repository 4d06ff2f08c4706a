"""AttentionSpec: what kernels of attention depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sparsecompile.kernels.spec import Spec


@dataclass(frozen=True)
class AttentionSpec(Spec):
    """Everything a kernel of attention depends on: `softmax(softcap(q @ k.T * scale) + bias) @ v`.

    `q` `[batch, heads, q, head_dim]`, `k` `[batch, heads / groups, kv, head_dim]`, `v` `[..., kv,
    value_dim]`; which keys a query attends to is a `BlockMask`. Sums are accumulated in float32.

    Attributes:
        dtype: of q and the result, and what k and v stand for: float32, bfloat16 or float16.
        head_dim: columns of q and k.
        value_dim: columns of v.
        groups: heads of q for each of k and v.
        softcap: whether scores become `cap * tanh(score / cap)`; the cap is a run-time value.
        kv_dtype: of what k and v are in memory, int8, of which each row has a scale; None for that
            of q.
    """

    operator: ClassVar[str] = "attention"
    baseline: ClassVar[str] = "torch"
    dtype: torch.dtype
    head_dim: int
    value_dim: int
    groups: int = 1
    softcap: bool = False
    kv_dtype: torch.dtype | None = None

    def __str__(self) -> str:
        """`attention bfloat16 d=64 groups=3 kv=int8`, `attention float32 d=96 dv=64 softcap`."""
        fields = [self.operator, str(self.dtype).removeprefix("torch."), f"d={self.head_dim}"]
        if self.value_dim != self.head_dim:
            fields.append(f"dv={self.value_dim}")
        if self.groups != 1:
            fields.append(f"groups={self.groups}")
        if self.softcap:
            fields.append("softcap")
        if self.kv_dtype is not None:
            fields.append(f"kv={self.kv_dtype}".replace("torch.", ""))
        return " ".join(fields)
