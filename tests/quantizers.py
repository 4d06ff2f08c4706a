"""Weights as quantisers leave them, in floats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsecompile.codecs.nf4 import NF4


def gguf(kind: str) -> Callable[[Tensor], Tensor]:
    """What gguf's own `quants` make of a weight; skips where it is missing."""

    def through(weight: Tensor) -> Tensor:
        import pytest

        quants = pytest.importorskip("gguf.quants")
        from gguf import GGMLQuantizationType

        form = GGMLQuantizationType[kind]
        return torch.from_numpy(quants.dequantize(quants.quantize(weight.numpy(), form), form))

    return through


def gptq(weight: Tensor) -> Tensor:
    """Four bits of 64 columns with a zero point, scales in float16."""
    groups = weight.view(-1, 64)
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scales = ((high - low) / 15).half().float()
    zero = (-low / scales).round()
    codes = (groups / scales).round().add(zero).clamp(0, 15)
    return ((codes - zero) * scales).view_as(weight)


def q4_k(weight: Tensor) -> Tensor:
    """Four bits of 32 columns; scales and minima of six bits times those of 256 columns."""
    blocks = weight.view(-1, 8, 32)
    scales = (blocks.amax(2) - blocks.amin(2)) / 15
    minima = (-blocks.amin(2)).clamp(min=0)
    d, least = ((t.amax(1, keepdim=True) / 63).half().float() for t in (scales, minima))
    scales, minima = ((scales / d).round() * d)[..., None], ((minima / least).round() * least)
    codes = ((blocks + minima[..., None]) / scales).round().clamp(0, 15)
    return (scales * codes - minima[..., None]).view_as(weight)


def q6_k(weight: Tensor) -> Tensor:
    """Six bits of 16 columns; signed scales of eight bits times that of 256 columns."""
    blocks = weight.view(-1, 16, 16)
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    scales = largest / -32
    d = (scales.abs().amax(1, keepdim=True) / 127).half().float()
    scales = d * (scales / d).round().clamp(-128, 127)
    return (scales * (blocks / scales).round().clamp(-32, 31)).view_as(weight)


def nf4(weight: Tensor) -> Tensor:
    """As bitsandbytes: the largest magnitude of 64 columns times the nearest of sixteen values."""
    groups, table = weight.view(-1, 64), torch.tensor(NF4)
    largest = groups.abs().amax(1, keepdim=True)
    nearest = (groups[..., None] / largest[..., None] - table).abs().argmin(-1)
    return (table[nearest] * largest).view_as(weight)


def bitnet(weight: Tensor) -> Tensor:
    """`-s`, 0 and `s`, where `s` is the mean magnitude (arXiv 2402.17764)."""
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


def int8_rows(weight: Tensor) -> Tensor:
    """`round(W / (max|W| / 127))` a row, scales in float32."""
    scales = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scales).round() * scales


def fp8_rows(weight: Tensor) -> Tensor:
    """Floats of 8 bits with a scale a row, as torchao has them."""
    scales = weight.abs().amax(1, keepdim=True) / 448
    return (weight / scales).to(torch.float8_e4m3fn).float() * scales


def fp8(weight: Tensor) -> Tensor:
    """Floats of 8 bits as they are."""
    return weight.to(torch.float8_e5m2).float()


def table(weight: Tensor) -> Tensor:
    """Twelve values for the whole weight."""
    values = torch.linspace(-0.09, 0.11, 12).sin() + 0.003
    return values[(weight[..., None] - values).abs().argmin(-1)]


QUANTIZERS = {
    "Q4_0": (gguf("Q4_0"), "int4[group=32,scales=float16,lossless]"),
    "Q8_0": (gguf("Q8_0"), "int8[group=32,scales=float16,lossless]"),
    "Q4_1": (gguf("Q4_1"), "int4[group=32,scales=float16,minima,lossless]"),
    "Q5_0": (gguf("Q5_0"), "int5[group=32,scales=float16,lossless]"),
    "gptq": (gptq, "int4[group=64,scales=float16,zero_points,lossless]"),
    "Q4_K": (q4_k, "int4[group=32,scales=float32,minima,lossless]"),
    "Q6_K": (q6_k, "int6[group=16,scales=float32,lossless]"),
    "nf4": (nf4, "nf4[group=64,scales=float32,lossless]"),
    "bitnet": (bitnet, "ternary[scales=float32,lossless]"),
    "int8": (int8_rows, "int8[scales=float32,lossless]"),
    "fp8 rows": (fp8_rows, "fp8[scales=float32,lossless]"),
    "fp8": (fp8, "fp8[e5m2,unscaled,lossless]"),
    "table": (table, "codebook[lossless]"),
}
"""What they do, and what is found of it in float32."""
