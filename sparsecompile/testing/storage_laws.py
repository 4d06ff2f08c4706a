"""Laws of formats that are kept in models and files; `sparsecompile.testing` has the others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.storage.load import load
from sparsecompile.storage.save import save
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.stored import Stored


def check_storage(format: Format, weight: Tensor, path: Path) -> None:
    """A weight can be read by rows, kept in a file and read from it, bit for bit.

    Args:
        format: the format.
        weight: `[n, k]`; without the structure there is nothing to check.
        path: a file that may be written.

    Raises:
        AssertionError: a law does not hold.
    """
    try:
        packed = format.pack(weight)
    except Reject:
        return
    dense = packed.unpack()
    _check_rows(packed, dense)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        converted = packed.to(dtype).unpack()
        assert converted.dtype == dtype
        want = dense.to(dtype) if format.codec.lossless else packed.unpack(dtype)
        # What becomes of a NaN's lower bits is up to the instructions that torch chooses.
        first, second = (t.masked_fill(t.isnan(), torch.nan) for t in (converted, want))
        assert same_bits(first, second), f"{format} in {dtype} is another weight"
    holder = nn.Module()
    holder.weight = nn.Parameter(PackedTensor(Stored(packed)), requires_grad=False)
    save(holder, path)
    loaded = load(path)["weight"]
    assert isinstance(loaded, PackedTensor)
    assert loaded.dtype == weight.dtype
    found = loaded.packed
    assert isinstance(found, Packed)
    assert (found.slots, found.exact) == (packed.slots, packed.exact)
    for name, tensor in packed.tensors.items():
        assert same_bits(found.tensors[name], tensor), f"{name} came back different"
    assert same_bits(found.unpack(), dense)


def _check_rows(packed: Packed, dense: Tensor) -> None:
    n = packed.shape[0]
    for rows in (torch.arange(n), torch.arange(n).flip(0)[::3], torch.arange(min(n, 1)).repeat(3)):
        assert same_bits(packed.rows(rows), dense[rows]), "rows differ from the unpacked weight's"
    stored = Stored(packed)
    assert same_bits(stored.unpack(), dense)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have one shape, dtype and every bit in common."""
    first, second = first.contiguous(), second.contiguous()
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
    )
