"""Bits in bytes: the order in which masks and short codes are stored."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(mask: Tensor) -> Tensor:
    """Rows of bools to rows of bytes, first column in the lowest bit.

    Args:
        mask: `[n, k]` bool.

    Returns:
        `[n, ceil(k / 8)]` uint8; the tail of the last byte is zero.
    """
    return pack_codes(mask.view(torch.uint8), 1)


def unpack_bits(packed: Tensor, k: int) -> Tensor:
    """Inverse of `pack_bits`: `[n, ceil(k / 8)]` uint8 to `[n, k]` bool."""
    return unpack_codes(packed, 1, k).view(torch.bool)


def pack_codes(codes: Tensor, width: int) -> Tensor:
    """Rows of codes of 1, 2, 4 or 8 bits to rows of bytes, first code in the lowest bits.

    Args:
        codes: `[n, g]` uint8, each below `2 ** width`.
        width: bits of a code.

    Returns:
        `[n, ceil(g * width / 8)]` uint8.
    """
    per_byte = 8 // width
    count = codes.shape[1]
    if count % per_byte:
        codes = torch.nn.functional.pad(codes, (0, per_byte - count % per_byte))
    packed = codes[:, ::per_byte].clone()
    for i in range(1, per_byte):
        packed |= codes[:, i::per_byte] << (i * width)
    return packed


def unpack_codes(packed: Tensor, width: int, count: int) -> Tensor:
    """Inverse of `pack_codes`: `[n, bytes]` uint8 to `[n, count]` uint8."""
    per_byte = 8 // width
    codes = torch.empty(packed.shape[0], packed.shape[1] * per_byte, dtype=torch.uint8)
    for i in range(per_byte):
        codes[:, i::per_byte] = (packed >> (i * width)) & (2**width - 1)
    return codes[:, :count].contiguous()
