"""Models that compressed-tensors quantised: what it unpacks is packed as the integers it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from packing import Packing
from torch import nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse

pytestmark = pytest.mark.filterwarnings("ignore")
_FOUR = {"num_bits": 4, "strategy": "group", "group_size": 32}


def compressed(**weights: Any) -> tuple[Any, Any]:
    """A linear of integers, in words as files have them, and what reads these."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    ct = pytest.importorskip("compressed_tensors.quantization")
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(128, 48)).requires_grad_(False)
    args = ct.QuantizationArgs(**weights)
    scheme = ct.QuantizationScheme(targets=["Linear"], weights=args)
    config = ct.QuantizationConfig(config_groups={"all": scheme}, quantization_status="frozen")
    ct.apply_quantization_config(model, config)
    grouped = model[0].weight.view(48, -1, args.group_size or 128)
    scales, zeros = ct.utils.calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    model[0].weight_scale.copy_(scales)
    model[0].weight_zero_point.copy_(zeros)
    compressor = compressors.ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    return model, compressor


@pytest.mark.parametrize(
    ("weights", "format"),
    [
        (_FOUR, "dense/int4[group=32,scales=float32,lossless]"),
        (_FOUR | {"symmetric": False}, "dense/int4[group=32,scales=float32,zero_points,lossless]"),
        ({"num_bits": 8, "strategy": "channel"}, "dense/int8[scales=float32,lossless]"),
        (
            {"num_bits": 8, "strategy": "channel", "type": "float"},
            "dense/fp8[scales=float32,lossless]",
        ),
    ],
)
@torch.no_grad()
def test_what_it_unpacks_is_packed_as_the_integers_it_was(
    weights: dict[str, Any], format: str
) -> None:
    model, compressor = compressed(**weights)
    compressor.decompress_model(model)
    plain = nn.Linear(128, 48).requires_grad_(False)
    plain.weight.copy_(model[0].weight)
    plain.bias.copy_(model[0].bias)
    x, packing = torch.randn(3, 128), Packing()
    exact = F.linear(x.double(), plain.weight.double(), plain.bias.double())
    assert_no_worse(torch.compile(plain, backend=packing)(x), model(x), exact)
    (node,) = packing.compiler.report.nodes
    assert not node.lossy
    assert node.format == format


@torch.no_grad()
def test_its_own_modules_break_the_graph_and_the_report_says_so() -> None:
    model, _ = compressed(**_FOUR)
    x = torch.randn(3, 128)
    eager = model(x)
    report = sc.explain(model, x)
    assert not any(node.packed for node in report.nodes)
    assert "Dynamo runs its nn.Linear outside of them" in str(report)
    torch.testing.assert_close(torch.compile(model, backend=Packing())(x), eager)
