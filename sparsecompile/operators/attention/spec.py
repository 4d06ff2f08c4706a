"""AttentionSpec: what kernels of attention depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sparsecompile.kernels.spec import Spec


@dataclass(frozen=True)
class AttentionSpec(Spec):
    """Everything an attention's kernel depends on: `softmax(softcap(q @ k.T * scale) + mask) @ v`.

    `q` is `[batch, heads, queries, head_dim]`, `k` `[batch, heads / groups, keys, head_dim]`, `v`
    `[batch, heads / groups, keys, value_dim]`; all else are run-time values.

    Attributes:
        dtype: of q, k, v and what is returned: float32, bfloat16 or float16.
        head_dim: width of queries and keys.
        value_dim: width of values.
        groups: query heads that share a key head.
        softcap: whether scores are `cap * tanh(score / cap)`.
    """

    operator: ClassVar[str] = "attention"
    dtype: torch.dtype
    head_dim: int
    value_dim: int
    groups: int = 1
    softcap: bool = False

    def __str__(self) -> str:
        """`attention bfloat16 d=64 groups=3`."""
        parts = [self.operator, str(self.dtype).removeprefix("torch."), f"d={self.head_dim}"]
        if self.value_dim != self.head_dim:
            parts.append(f"dv={self.value_dim}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        return " ".join((*parts, *["softcap"] * self.softcap))
