"""The generic layout: a header, then the tensors of a Packed one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.errors import SparseCompileError
from sparsecompile.ops import HEADER_BYTES
from sparsecompile.packed import Format, Packed
from sparsecompile.spec import digest

ALIGNMENT = 64
MAX_TENSORS = HEADER_BYTES // 8 - 6


def layout_id(template: str, fmt: Format, dtype: torch.dtype) -> int:
    """The number by which a kernel knows its own layouts: 63 bits, the same in every process."""
    return int(digest(template, str(fmt), str(dtype))[:16], 16) >> 1


def concatenate(template: str, packed: Packed) -> Tensor:
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
    header = [layout_id(template, packed.format, packed.dtype), n, k, packed.slots, end]
    header += [len(tensors), *offsets]
    header += [0] * (HEADER_BYTES // 8 - len(header))
    layout = _aligned(end)
    layout[:HEADER_BYTES] = torch.tensor(header, dtype=torch.int64).view(torch.uint8)
    for offset, tensor in zip(offsets, tensors, strict=True):
        layout[offset : offset + tensor.numel()] = tensor
    return layout


def _aligned(nbytes: int) -> Tensor:
    """Zeros whose first byte has an address that is a multiple of the alignment.

    torch's allocator aligns so on every platform it is built for; the check is for other ones.
    """
    layout = torch.zeros(nbytes, dtype=torch.uint8)
    if layout.data_ptr() % ALIGNMENT:
        raise SparseCompileError(f"torch's allocator does not align to {ALIGNMENT} bytes")
    return layout
