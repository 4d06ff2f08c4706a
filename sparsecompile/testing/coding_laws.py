"""The law of codings: what a codec says of its values is how they are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.formats.coding import Coding
from sparsecompile.formats.packed import Packed
from sparsecompile.structures.bits import load_stream, stream_bytes

_FP8 = {4: torch.float8_e4m3fn, 5: torch.float8_e5m2}


def check_coding(packed: Packed) -> None:
    """Values take the bits that the codec's coding says, and decode as it says.

    Nothing is checked where the codec says nothing.

    Args:
        packed: a weight.

    Raises:
        AssertionError: the law does not hold.
    """
    codec = packed.format.codec
    coding = codec.coding(packed.dtype)
    if coding is None:
        return
    _check_tensors(packed, coding)
    decoded = codec.decode(packed.values, packed.places, torch.float32)
    rounded = codec.decode(packed.values, packed.places, packed.dtype)
    assert torch.equal(decoded.to(packed.dtype).nan_to_num(), rounded.nan_to_num()), "two roundings"
    is_exact = torch.equal(decoded.nan_to_num(), rounded.float().nan_to_num())
    assert coding.rounds <= codec.lossless, "what is rounded anyway is not rounded again"
    assert is_exact or coding.rounds or not codec.lossless, "decoded values are rounded"
    again = decode(packed, coding)
    assert torch.equal(again.nan_to_num(), decoded.nan_to_num()), "not what the coding says"


def _check_tensors(packed: Packed, coding: Coding) -> None:
    (n, k), tensors = packed.shape, packed.values
    groups = -(-k // coding.group) if coding.group else 1
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    if coding.group is not None:
        shapes["scales"] = (n, groups), coding.scales
    if coding.offsets is not None:
        dtype = coding.scales if coding.offsets == "minima" else torch.uint8
        shapes[coding.offsets] = (n, groups), dtype
    if coding.table_rows is not None:
        tables = -(-n // coding.table_rows) if coding.table_rows else 1
        shapes["table"] = (tables, 2**coding.bits), packed.dtype
    least = stream_bytes(packed.slots, coding.bits)
    for name, (shape, dtype) in shapes.items():
        stored = tensors[name]
        assert stored.shape == shape, f"{name} {tuple(stored.shape)}, not {shape}"
        assert stored.dtype == dtype, f"{name} of {stored.dtype}, not {dtype}"
        least += stored.numel() * stored.element_size()
    taken = sum(t.numel() * t.element_size() for t in tensors.values())
    assert taken == least, f"{taken} bytes, the coding says {least}"


def decode(packed: Packed, coding: Coding) -> Tensor:
    """Values of a weight before they are rounded to its dtype, as a coding says: `[slots]` float32.

    The definition for kernels.
    """
    tensors, places = packed.values, packed.places
    if coding.kind == "float":
        return tensors["values"].float()
    stored = tensors["values"].view(torch.uint8)
    codes = load_stream(stored, coding.bits, packed.slots)
    if coding.kind == "fp8":
        values = codes.view(_FP8[coding.exponent]).float()
    elif coding.kind == "table" and coding.table_rows is None:
        values = torch.tensor(coding.table)[codes.int()]
    elif coding.kind == "table":
        rows = places.rows.clamp(max=max(packed.shape[0] - 1, 0))
        which = rows // coding.table_rows if coding.table_rows else torch.zeros_like(rows)
        values = tensors["table"].float()[which, codes.long()]
    else:
        values = (codes ^ 128 if coding.bits == 8 else codes).float()
    if coding.group is None:
        return values
    groups = places.groups(coding.group or None)
    scales, minima = tensors["scales"].reshape(-1).float()[groups], torch.zeros(())
    if coding.offsets == "zero_points":
        values = values - tensors["zero_points"].reshape(-1)[groups]
    elif coding.offsets == "minima":
        minima = tensors["minima"].reshape(-1).float()[groups]
    elif coding.kind == "affine":
        values = values - 2 ** (coding.bits - 1)
    return values * scales + minima
