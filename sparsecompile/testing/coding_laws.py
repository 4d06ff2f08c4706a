"""The law of codings: what a codec says of its values is how they are stored."""

from __future__ import annotations

import torch

from sparsecompile.formats.packed import Packed


def check_coding(packed: Packed) -> None:
    """Values take the bits that the codec's coding says, and decode as it says.

    Nothing is checked where the codec says nothing, and of tables and zero points only what they
    share with other codings.

    Args:
        packed: a weight.

    Raises:
        AssertionError: the law does not hold.
    """
    codec, places = packed.format.codec, packed.places
    coding = codec.coding(packed.dtype)
    if coding is None:
        return
    n, k = packed.shape
    least = -(-coding.bits * packed.slots // 8)
    decoded = codec.decode(packed.values, places, torch.float32)
    scales = torch.ones(())
    if coding.group is not None:
        stored = packed.values["scales"]
        groups = -(-k // coding.group) if coding.group else 1
        assert stored.shape == (n, groups), f"scales {tuple(stored.shape)}, not {(n, groups)}"
        assert stored.dtype == coding.scales, f"scales of {stored.dtype}, not {coding.scales}"
        least += stored.numel() * stored.element_size()
        scales = stored.reshape(-1).double()[places.groups(coding.group or None)]
    taken = sum(t.numel() * t.element_size() for t in packed.values.values())
    is_all = coding.kind != "table" and not coding.zero_points
    assert taken == least if is_all else taken > least, f"{taken} bytes, the coding says {least}"
    if coding.kind == "float" or coding.rounds:
        rounded = codec.decode(packed.values, places, packed.dtype).float()
        assert torch.equal(rounded.nan_to_num(), decoded.nan_to_num()), "decoded values are rounded"
    elif coding.kind == "affine" and not coding.zero_points:
        integers = (decoded.double() / scales).round()
        assert torch.equal((integers * scales).float(), decoded), "no integers times scales"
