"""`packed_embedding`: the node that a pass makes of an embedding, its definition, and its op.

`sparsecompile::embedding(ids, weight, n, k, dtype, kernel)`: `ids` int32 or int64; `weight` uint8,
a layout made by the kernel's `prepack` or a view of its header, or the dense table `[n, k]` itself;
`n` and `k` of the table; `kernel` a `Kernel.key`. Returns `[*ids.shape, k]` in `dtype`, that of the
table.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.formats.names import format_of
from sparsecompile.graph.pattern import Call
from sparsecompile.graph.weight_view import weight_reader
from sparsecompile.kernels.ops import define

EMBEDDING = Call(
    (F.embedding,),
    ("ids", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
)
"""Pattern of an embedding."""


@weight_reader
def packed_embedding(ids: Tensor, weight: Tensor, format: str) -> Tensor:
    """What a packed embedding computes: a node of the graph until it gets its kernel.

    `ids` int32 or int64 of any shape, `weight` `[n, k]` dense.
    """
    return F.embedding(ids, format_of(format).pack(weight).unpack())


PACKED_EMBEDDING = Call((packed_embedding,), ("ids", "weight", "format"))
"""Pattern of a packed embedding."""


@define
def _embedding(
    ids: Tensor, weight: Tensor, n: int, k: int, dtype: torch.dtype, kernel: int
) -> Tensor:
    return ids.new_empty((*ids.shape, k), dtype=dtype)
