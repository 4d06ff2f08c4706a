"""EmbeddingSpec: what kernels of packed embeddings depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sparsecompile.formats.packed import Format
from sparsecompile.kernels.spec import Spec


@dataclass(frozen=True)
class EmbeddingSpec(Spec):
    """Everything a packed embedding's kernel depends on: `y = W[ids]`.

    `ids` int32 or int64 of any shape, `W` `[n, k]` in `format`, `y` `[*ids.shape, k]`.

    Attributes:
        format: of the table.
        dtype: of y: float32, bfloat16 or float16.
    """

    operator: ClassVar[str] = "embedding"
    format: Format
    dtype: torch.dtype

    def __str__(self) -> str:
        """`embedding dense/int8 bfloat16`."""
        return f"{self.operator} {self.format} {str(self.dtype).removeprefix('torch.')}"
