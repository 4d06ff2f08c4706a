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


def stream_bytes(count: int, width: int) -> int:
    """Bytes of so many codes of a width one after the other."""
    return -(-count * width // 8)


def store_stream(codes: Tensor, width: int) -> Tensor:
    """Codes `[count]` uint8 of 1 to 8 bits, one after the other, first code in the lowest bits.

    Returns:
        `[ceil(count * width / 8)]` uint8: code `i` has bits `i * width` and after; then zeros.
    """
    if 8 % width == 0:
        return pack_codes(codes.unsqueeze(0), width).squeeze(0)
    whole = torch.nn.functional.pad(codes, (0, -codes.numel() % 8)).view(-1, 8).long()
    words = (whole << torch.arange(8) * width).sum(1, keepdim=True)
    stored = (words >> torch.arange(width) * 8 & 255).to(torch.uint8)
    return stored.reshape(-1)[: stream_bytes(codes.numel(), width)].clone()


def load_stream(stored: Tensor, width: int, count: int) -> Tensor:
    """Inverse of `store_stream`: `[count]` uint8."""
    if 8 % width == 0:
        return unpack_codes(stored.unsqueeze(0), width, count).squeeze(0)
    padded = torch.nn.functional.pad(stored, (0, -stored.numel() % width)).view(-1, width).long()
    words = (padded << torch.arange(width) * 8).sum(1, keepdim=True)
    codes: Tensor = (words >> torch.arange(8) * width & 2**width - 1).to(torch.uint8)
    return codes.reshape(-1)[:count].clone()


def take_stream(stored: Tensor, width: int, places: Tensor) -> Tensor:
    """The codes of some places `[p]` int64 alone, stored likewise."""
    if width == 8:
        return stored[places]
    bit = places * width
    first, second = bit >> 3, (bit + width - 1) >> 3
    words = stored[first].int() | stored[second].int() << 8
    codes: Tensor = words >> (bit & 7).int() & 2**width - 1
    return store_stream(codes.to(torch.uint8), width)
