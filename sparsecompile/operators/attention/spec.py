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
        dtype: of q, k, v and the result: float32, bfloat16 or float16.
        head_dim: columns of q and k.
        value_dim: columns of v.
        groups: heads of q for each of k and v.
        softcap: whether scores become `cap * tanh(score / cap)`; the cap is a run-time value.
    """

    operator: ClassVar[str] = "attention"
    baseline: ClassVar[str] = "torch"
    dtype: torch.dtype
    head_dim: int
    value_dim: int
    groups: int = 1
    softcap: bool = False

    def __str__(self) -> str:
        """`attention bfloat16 d=64 groups=3`, `attention float32 d=96 dv=64 softcap`."""
        fields = [self.operator, str(self.dtype).removeprefix("torch."), f"d={self.head_dim}"]
        if self.value_dim != self.head_dim:
            fields.append(f"dv={self.value_dim}")
        if self.groups != 1:
            fields.append(f"groups={self.groups}")
        if self.softcap:
            fields.append("softcap")
        return " ".join(fields)
