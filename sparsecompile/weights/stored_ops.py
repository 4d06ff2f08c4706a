"""The ops that read stored weights, opaque to tracing: graphs do not depend on how they are stored.

`stored_weight(handle, shape, dtype)`: the dense weight; `stored_rows(handle, rows, k,
dtype)`: its rows `[*rows.shape, k]`. `handle` `[1]` int64 is the number of a `Stored`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsecompile.kernels.ops import NAMESPACE
from sparsecompile.weights.stored import find_stored

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_library.define("stored_weight(Tensor handle, int[] shape, ScalarType dtype) -> Tensor")
_library.define("stored_rows(Tensor handle, Tensor rows, int k, ScalarType dtype) -> Tensor")


def _stored_weight(handle: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return find_stored(int(handle)).unpack(dtype)


def _stored_weight_fake(handle: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return handle.new_empty(shape, dtype=dtype)


def _stored_rows(handle: Tensor, rows: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    return find_stored(int(handle)).rows(rows)


def _stored_rows_fake(handle: Tensor, rows: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    return handle.new_empty((*rows.shape, k), dtype=dtype)


_library.impl("stored_weight", _stored_weight, "CPU")
_library.impl("stored_rows", _stored_rows, "CPU")
torch.library.register_fake(f"{NAMESPACE}::stored_weight", _stored_weight_fake, lib=_library)
torch.library.register_fake(f"{NAMESPACE}::stored_rows", _stored_rows_fake, lib=_library)
