"""The generic layout: a header, then the tensors of a Packed one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.memory import ALIGNMENT, allocate
from sparsecompile.errors import SparseCompileError
from sparsecompile.ops import HEADER_BYTES
from sparsecompile.packed import Format, Packed
from sparsecompile.spec import digest

MAX_TENSORS = HEADER_BYTES // 8 - 6


def layout_id(layout: str, fmt: Format, dtype: torch.dtype) -> int:
    """The number by which kernels know a layout: 63 bits, the same in every process."""
    return int(digest(layout, str(fmt), str(dtype))[:16], 16) >> 1


def concatenate(name: str, packed: Packed) -> Tensor:
    """`SCLayoutHeader` of `text/arguments.h`, then each tensor at a multiple of 64 bytes.

    Returns:
        `[bytes]` uint8, beginning at a multiple of 64 bytes.

    Raises:
        SparseCompileError: the format has more tensors than the header has room for.
    """
    tensors = [t.contiguous().reshape(-1).view(torch.uint8) for t in packed.tensors.values()]
    if len(tensors) > MAX_TENSORS:
        raise SparseCompileError(
            f"{packed.format} has {len(tensors)} tensors; a layout has room for {MAX_TENSORS}"
        )
    offsets, end = [], HEADER_BYTES
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    n, k = packed.shape
    header = [layout_id(name, packed.format, packed.dtype), n, k, packed.slots, end]
    header += [len(tensors), *offsets]
    header += [0] * (HEADER_BYTES // 8 - len(header))
    layout = allocate(end).zero_()
    layout[:HEADER_BYTES] = torch.tensor(header, dtype=torch.int64).view(torch.uint8)
    for offset, tensor in zip(offsets, tensors, strict=True):
        layout[offset : offset + tensor.numel()] = tensor
    return layout
