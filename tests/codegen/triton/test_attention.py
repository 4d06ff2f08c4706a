"""Attention on GPUs: what is taken, what is said, and how graphs call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import stub_driver
from goldens import check_golden
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from triton_cases import H100

import sparsecompile as sc
from sparsecompile.codegen.triton.attention.flash import FlashAttention
from sparsecompile.codegen.triton.attention.start import start_attention
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.ops import load_ops
from sparsecompile.errors import Reject, SparseCompileError
from sparsecompile.kernels.target import Target
from sparsecompile.operators.attention.ops import most_bytes
from sparsecompile.operators.attention.spec import AttentionSpec

GOLDENS = Path(__file__).parent / "goldens"
FLASH, SPEC = FlashAttention(), AttentionSpec(torch.bfloat16, 64, 64, 3)
STORED = replace(SPEC, kv_dtype=torch.int8)
REGISTRY = sc.default_registry()


class Causal(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def qkv(queries: int, keys: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((1, 8, queries, 64), (1, 2, keys, 64), (1, 2, keys, 64))
    q, k, v = (torch.empty(s, dtype=torch.float16, device=device) for s in shapes)
    return q, k, v


def refusal(spec: AttentionSpec, arch: str) -> str:
    target = Target.host() if arch == "cpu" else Target.parse(arch)
    with pytest.raises(Reject) as refused:
        FLASH.supports(spec, target, REGISTRY)
    return refused.value.reason


def test_what_it_does_not_take() -> None:
    assert refusal(SPEC, "cpu") == "Triton is for GPUs, not for cpu"
    assert refusal(SPEC, "sm_75") == "needs sm_80, this is sm_75"
    wide = AttentionSpec(torch.float32, 192, 64)
    assert refusal(wide, "sm_90") == "torch.float32 heads of 256 do not fit sm_90, 128 do"
    wide = AttentionSpec(torch.bfloat16, 64, 256)
    assert refusal(wide, "gfx942") == "torch.bfloat16 heads of 256 do not fit gfx942, 128 do"
    stored = AttentionSpec(torch.bfloat16, 256, 64, kv_dtype=torch.int8)
    assert refusal(stored, "sm_90") == "torch.bfloat16 heads of 256 do not fit sm_90, 128 do"
    stored = AttentionSpec(torch.float32, 64, 64, kv_dtype=torch.int8)
    why = "keys and values in torch.int8 are not read for queries in torch.float32, those in int8"
    assert refusal(stored, "sm_90").startswith(why)
    assert "float64 activations" in refusal(AttentionSpec(torch.float64, 64, 64), "sm_90")


def test_golden() -> None:
    source = FLASH.render(SPEC, FLASH.default(SPEC, H100), H100, REGISTRY)
    check_golden(GOLDENS / source.file, source.text)
    assert max(map(len, source.text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("q", (1, 6, 5, 32), r"q of an attention is \(1, 6, 5, 32\) torch.bfloat16; its kernel"),
        ("k", (1, 3, 9, 64), r"k of an attention is \(1, 3, 9, 64\) torch.bfloat16; its kernel"),
        ("v", (1, 2, 8, 64), r"takes \(1, 2, 9, 64\) torch.bfloat16"),
    ],
)
def test_tensors_that_do_not_fit(name: str, sizes: tuple[int, ...], said: str) -> None:
    kernel: Any = TritonCodegen().build(SPEC, FLASH, FLASH.default(SPEC, H100), H100, REGISTRY)
    shapes = {"q": (1, 6, 5, 64), "k": (1, 2, 9, 64), "v": (1, 2, 9, 64), name: sizes}
    given = [torch.zeros(shape, dtype=torch.bfloat16) for shape in shapes.values()]
    with pytest.raises(SparseCompileError, match=said):
        start_attention(kernel, *given, None, None, 1.0, 0.0, {})


@pytest.mark.parametrize(
    ("spec", "scales", "said"),
    [
        (STORED, (None, (1, 2, 9, 1)), "k of an attention has no scale; its kernel takes .*int8"),
        (SPEC, (None, (1, 2, 9, 1)), "v of an attention has a scale; its kernel takes .*bfloat16"),
        (STORED, ((1, 1, 9, 1), (1, 2, 8, 1)), r"scale of v is .*8, 1\); its kernel takes .*9, 1"),
    ],
)
def test_scales_that_do_not_fit(spec: AttentionSpec, scales: Any, said: str) -> None:
    kernel: Any = TritonCodegen().build(spec, FLASH, FLASH.default(spec, H100), H100, REGISTRY)
    q = torch.zeros(1, 6, 5, 64, dtype=spec.dtype)
    k = torch.zeros(1, 2, 9, 64, dtype=spec.kv_dtype or spec.dtype)
    given = [None if size is None else torch.ones(size) for size in scales]
    with pytest.raises(SparseCompileError, match=said):
        start_attention(kernel, q, k, k, None, None, 1.0, 0.0, {}, *given)


def test_a_report_says_what_serves_it() -> None:
    (node,) = sc.explain(Causal(), *qkv(512, 512), target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.template == "triton_flash"
    assert node.kernel.ranges[0].startswith("any m: many of triton_flash_attention_float16")
    assert "not measured; rooflines of H100 SXM: m=512 " in node.chosen_by


def test_without_a_mask_there_is_nothing_to_leave_out() -> None:
    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    (node,) = sc.explain(dense, *qkv(512, 512), target="sm_90").nodes
    assert not node.packed
    assert "rooflines of H100 SXM: m=512 1x" in node.reason


def test_queries_of_any_number_take_both_functions() -> None:
    q, k, v = qkv(512, 512)
    for tensor in (q, k, v):
        torch._dynamo.mark_dynamic(tensor, 2)
    (node,) = sc.explain(Causal(), q, k, v, target="sm_90").nodes
    assert node.kernel is not None
    assert [part.split(" of ")[0] for part in node.kernel.ranges] == ["m <= 16: few", "any m: many"]


def traced(model: nn.Module, calls: Sequence[Sequence[Tensor]]) -> list[str]:
    """AOTAutograd's graphs of calls on a GPU that is not there."""
    from torch._dynamo.backends.common import aot_autograd

    compiler, graphs = sc.Compiler(target="sm_90"), list[str]()

    def look(gm: Any, inputs: Any) -> Any:
        graphs.append(gm.code)
        return gm.forward

    def finish(module: Any, inputs: Any, layouts: Any) -> Any:
        return aot_autograd(fw_compiler=look)(module, [*inputs, *layouts])

    def backend(gm: Any, inputs: Any) -> Any:
        return compiler.compile(gm, inputs, finish)

    run = torch.compile(model, backend=backend)
    with torch.no_grad(), stub_driver(90):
        for q, *others in calls:
            assert run(q, *others).shape == q.shape
    return graphs


@pytest.mark.parametrize("lengths", [(70,), (70, 90, 33)])
def test_graphs_call_ops_that_find_the_tiles(lengths: tuple[int, ...]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        calls = [qkv(length, length, "cuda") for length in lengths]
        if len(lengths) > 1:
            for tensor in calls[0]:
                torch._dynamo.mark_dynamic(tensor, 2)
        (code,) = traced(Causal(), calls)
    assert "sparsecompile.interval_mask.default(" in code
    assert "sparsecompile.attention.default(" in code


def test_fakes_give_whole_layouts_on_gpus() -> None:
    load_ops()
    with FakeTensorMode():
        mask = torch.empty(2, 1, 70, 130, dtype=torch.bool, device="cuda")
        low = torch.empty(1, 3, 70, dtype=torch.int32, device="cuda")
        keep = torch.empty(2, 130, dtype=torch.bool, device="cuda")
        scanned = torch.ops.sparsecompile.scan_mask(mask)
        listed = torch.ops.sparsecompile.interval_mask(low, low, keep, None, None, 130)
        assert scanned.shape == (most_bytes(2, 1, 70, 130),)
        assert listed.shape == (most_bytes(2, 3, 70, 130),)
        assert torch.ops.sparsecompile.scan_mask(mask.to("cpu")).shape == (128,)
