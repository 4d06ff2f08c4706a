"""The generic layout: a header, then the tensors of a Packed one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.memory import ALIGNMENT, allocate
from sparsecompile.errors import SparseCompileError
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels.ops import HEADER_BYTES
from sparsecompile.kernels.spec import digest

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
    layout = layout_id(name, packed.format, packed.dtype)
    return lay_out(layout, packed.shape, packed.slots, tensors)


def lay_out(layout: int, shape: tuple[int, int], slots: int, tensors: Sequence[Tensor]) -> Tensor:
    """`SCLayoutHeader`, then each tensor at a multiple of 64 bytes.

    Args:
        layout: the number by which it is known.
        shape: `(n, k)` of the dense weight.
        slots: stored values.
        tensors: `[bytes]` uint8 each, at most `MAX_TENSORS`.

    Returns:
        `[bytes]` uint8, beginning at a multiple of 64 bytes.
    """
    offsets, end = [], HEADER_BYTES
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    header = [layout, *shape, slots, end, len(tensors), *offsets]
    header += [0] * (HEADER_BYTES // 8 - len(header))
    memory = allocate(end)
    memory[:HEADER_BYTES] = torch.tensor(header, dtype=torch.int64).view(torch.uint8)
    for offset, tensor in zip(offsets, tensors, strict=True):
        memory[offset : offset + tensor.numel()] = tensor
    return memory
