"""The ops of attention: what they refuse, and that sizes may vary in what is compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_cases import HOST, AttentionCase, CallCase, Inputs, attend, built
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sparsecompile.codegen.cpp.attention.template import FlashAttention
from sparsecompile.errors import Reject
from sparsecompile.kernels.target import Target
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import default_registry

SPEC = AttentionSpec(torch.float32, 64, 64, 2)
CASE = AttentionCase(HOST.isa, SPEC)


def inputs(queries: int = 20, mask: str = "none") -> Inputs:
    return Inputs.of(SPEC, CallCase(queries, 30, mask, torch.float32, "contiguous", 1))


STORED = AttentionCase(HOST.isa, replace(SPEC, kv_dtype=torch.int8))


def refused(match: str, given: Inputs, **numbers: float) -> None:
    with pytest.raises(RuntimeError, match=match):
        attend(given, built(CASE), **numbers)


def test_refuses_q_k_and_v() -> None:
    given = inputs()
    refused("q is Double, the kernel was made for Float", replace(given, q=given.q.double()))
    refused(r"q has shape \[4, 20, 64\], it must be \[batch, heads", replace(given, q=given.q[0]))
    refused(r"k has shape .* length, 64\]", replace(given, k=given.k[..., 1:]))
    heads = "k has 2 batch entries and 1 heads; those of q are 2 and 4, 2 for each of k"
    refused(heads, replace(given, k=given.k[:, :1]))
    refused("k has 1 batch entries and 2 heads", replace(given, k=given.k[:1]))
    length = r"v has shape \[2, 2, 29, 64\], all but its columns .* those of k, \[2, 2, 30, 64\]"
    refused(length, replace(given, v=given.v[:, :, 1:]))


def test_refuses_scales() -> None:
    given = Inputs.of(STORED.spec, CallCase(20, 30, "none", torch.float32, "contiguous", 1))
    scale = given.k_scale
    assert scale is not None
    refused("k is Char, the kernel was made for Float", given)
    refused("there is a v_scale, and the kernel reads Float", replace(inputs(), v_scale=scale))
    for match, wrong in (
        ("there is no k_scale, and the kernel reads Char", replace(given, k_scale=None)),
        ("v is Float, the kernel was made for Char", replace(given, v=given.v.float())),
        ("k_scale must be float32, bfloat16 or", replace(given, k_scale=scale.double())),
        (
            r"v_scale has shape \[2, 2, 29, 1\], it .*v, \[2, 2, 30, 1\], or 1 in some dimensions",
            replace(given, v_scale=scale[:, :, 1:]),
        ),
    ):
        with pytest.raises(RuntimeError, match=match):
            attend(wrong, built(STORED))


def test_refuses_masks() -> None:
    given, mask = inputs(), torch.ones(1, 1, 20, 31, dtype=torch.bool)
    shape = r"the mask is one of \[1, 1, 20, 31\], the scores are \[2, 4, 20, 30\]"
    refused(shape, replace(given, mask=BlockMask.of(mask).layout()))
    layout = BlockMask.of(mask[..., 1:]).layout()
    wrong = layout.clone()
    wrong[:8].view(torch.int64)[0] = 2
    refused("the mask has form 2, for 20 queries it must be 1", replace(given, mask=wrong))
    refused("the mask must be uint8 on the CPU, not Float", replace(given, mask=layout.float()))
    refused("hold a header of 128 bytes; pass what scan_mask", replace(given, mask=layout[:64]))
    refused(r"the mask is cut off: \d+ of \d+", replace(given, mask=layout[:-64].clone()))
    added = torch.ops.sparsecompile.scan_mask(torch.full((1, 1, 20, 30), 0.5))
    refused("tiles to which a bias is added, and there is none", replace(given, mask=added))


def test_refuses_a_bias() -> None:
    given, bias = inputs(), torch.zeros(2, 4, 20, 30)
    refused("bias must be float32, bfloat16 or float16", replace(given, bias=bias.double()))
    refused(r"bias has shape \[20, 30\], it must be that of", replace(given, bias=bias[0, 0]))
    refused(r"scores, \[2, 4, 20, 30\], or 1 in", replace(given, bias=bias[:, :3]))


def test_refuses_numbers() -> None:
    refused("scores are scaled by 0, it must be positive", inputs(), scale=0.0)
    refused("softcap is 2, the kernel was made for none", inputs(), cap=2.0)
    capped = built(AttentionCase(HOST.isa, replace(SPEC, softcap=True)))
    with pytest.raises(RuntimeError, match="softcap is 0, the kernel was made for one"):
        attend(inputs(), capped)
    given = inputs()
    with pytest.raises(RuntimeError, match="no kernel 77 in this process: compile the model"):
        torch.ops.sparsecompile.attention(given.q, given.k, given.v, None, None, 1.0, 0.0, 77)


@pytest.mark.parametrize(
    ("spec", "target", "reason"),
    [
        (replace(SPEC, dtype=torch.float64), HOST, "attention in torch.float64 has no C++ type"),
        (replace(SPEC, head_dim=8), HOST, "heads have 8 columns, from 16 to 256 are served"),
        (replace(SPEC, value_dim=300), HOST, "heads have 300 columns"),
        (replace(SPEC, kv_dtype=torch.uint8), HOST, "keys and values in torch.uint8 have no C++"),
        (SPEC, Target.parse("sm_90"), "C++ is for CPUs, not for cuda"),
    ],
)
def test_specs_that_are_not_served(spec: AttentionSpec, target: Target, reason: str) -> None:
    with pytest.raises(Reject) as refusal:
        FlashAttention().supports(spec, target, default_registry())
    assert refusal.value.reason.startswith(reason)


def test_there_is_nothing_to_pack() -> None:
    template: Any = FlashAttention()
    with pytest.raises(NotImplementedError, match="flash has no layout: there is no weight"):
        template.prepack(None, None, None)


@pytest.mark.parametrize("columns", [1, 30])
def test_a_bias_that_is_expanded(columns: int) -> None:
    given = inputs()
    bias = torch.randn(1, 4, 1, columns)
    ours = attend(replace(given, bias=bias), built(CASE))
    same = attend(replace(given, bias=bias.expand(2, 4, 20, 30).contiguous()), built(CASE))
    assert torch.equal(ours, same)


def test_one_graph_serves_every_length() -> None:
    """Masks are built and read in a graph whose sizes are symbols."""
    key, counting = built(CASE).key, CompileCounterWithBackend("inductor")

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ops, length = torch.ops.sparsecompile, k.shape[2]
        place = torch.arange(q.shape[2], dtype=torch.int32)[None, None]
        mask = ops.interval_mask(place - 40, place + 1, None, None, None, length)
        scanned = ops.scan_mask(torch.ones(1, 1, q.shape[2], length, dtype=torch.bool).tril())
        one = ops.attention(q, k, v, mask, None, 0.125, 0.0, key)
        return one + ops.attention(q, k, v, scanned, None, 0.125, 0.0, key)

    fast = torch.compile(attention, backend=counting, dynamic=True, fullgraph=True)
    for length in (20, 70, 130):
        q, k, v = (torch.randn(1, heads, length, 64) for heads in (4, 2, 2))
        torch.testing.assert_close(fast(q, k, v), attention(q, k, v))
    assert counting.frame_count == 1
