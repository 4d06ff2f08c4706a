"""Weights that graphs make of integers, or round on the way, are packed as what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from packing import Packing
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile.testing import assert_no_worse


class Rounded(nn.Module):
    """A linear whose weight training rounds: `torch.fake_quantize_*`."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, 128), requires_grad=False)
        self.register_buffer("scales", self.weight.abs().amax(1) / 7)
        self.register_buffer("zeros", torch.zeros(48, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.scales, self.zeros, 0, -8, 7
        )
        return F.linear(x, weight)


class Integers(nn.Module):
    """A linear of integers with a scale and a zero point for 32 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(0, 16, (48, 4, 32), dtype=torch.uint8))
        self.register_buffer("scales", (torch.rand(48, 4, 1) + 0.5).half().float())
        self.register_buffer("zeros", torch.randint(0, 16, (48, 4, 1), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight.float() - self.zeros.float()) * self.scales
        return F.linear(x, weight.view(48, 128))


class Decomposed(nn.Module):
    """As exported models have it."""

    def __init__(self) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed

        self.register_buffer("weight", torch.randint(-127, 128, (48, 128), dtype=torch.int8))
        self.weight[:, 0] = 127
        self.register_buffer("scales", torch.rand(48) + 0.5)
        self.register_buffer("zeros", torch.zeros(48, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel.default(
            self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8
        )
        return F.linear(x, weight)


class Static(Decomposed):
    """As exported models have it whose activations are integers of a scale found beforehand."""

    def forward(self, x: Tensor) -> Tensor:
        ops, step = torch.ops.quantized_decomposed, (0.05, 3, -128, 127, torch.int8)
        rounded = ops.quantize_per_tensor.default(x, *step)
        return super().forward(ops.dequantize_per_tensor.default(rounded, *step))


@pytest.mark.parametrize(
    ("make", "format"),
    [
        (Rounded, "dense/int4[scales=float32,lossless]"),
        (Integers, "dense/int4[group=32,scales=float16,zero_points,lossless]"),
        (Decomposed, "dense/int8[scales=float32,lossless]"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@torch.no_grad()
def test_they_are_packed_as_what_they_are(make: Callable[[], Any], format: str) -> None:
    torch.manual_seed(0)
    model, x, packing = make(), torch.randn(3, 128), Packing()
    fast = torch.compile(model, backend=packing)

    def check() -> None:
        weights: list[Tensor] = []
        with patch.object(F, "linear", lambda x, weight: weights.append(weight)):
            model(x)
        exact = x.double() @ weights[0].double().t()
        assert_no_worse(fast(x), model(x), exact)

    check()
    (node,) = packing.compiler.report.nodes
    assert node.format == format
    assert not node.lossy
    model.scales.mul_(2)
    check()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@torch.no_grad()
def test_activations_are_rounded_where_the_graph_rounds_them() -> None:
    torch.manual_seed(0)
    model, x, packing = Static(), 4 * torch.randn(3, 128), Packing()
    result = torch.compile(model, backend=packing)(x)
    codes = (x / 0.05).round().add(3).clamp(-128, 127)
    exact = ((codes - 3) * 0.05).double() @ (model.weight * model.scales[:, None]).double().t()
    assert_no_worse(result, model(x), exact)
    (node,) = packing.compiler.report.nodes
    assert node.format == "dense/int8[scales=float32,lossless]"
    after = packing.compiler.report.after
    assert ".quantize_per_tensor.default(" in after
    assert ".dequantize_per_tensor.default(" in after
