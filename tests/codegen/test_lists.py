"""The lists template: what it refuses, and what its layout takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from codings import OTHERS, Coded

from sparsecompile import Bitmap, Format
from sparsecompile.codegen.cpp.lists import ListsLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import HEADER_BYTES, linear
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

HOST = Target.host()


def refusal(spec: KernelSpec, target: Target, registry: Registry) -> str:
    with pytest.raises(Reject) as caught:
        ListsLinear().supports(spec, target, registry)
    return caught.value.reason


def test_what_it_refuses(registry: Registry) -> None:
    spec = KernelSpec(registry.format("bitmap"), torch.float32)
    assert "not for cuda" in refusal(spec, Target("cuda", "sm_90", "sm_90"), registry)
    double = KernelSpec(registry.format("bitmap"), torch.float64)
    assert refusal(double, HOST, registry) == "torch.float64 activations have no C++ type"
    rounded = KernelSpec(registry.format("bitmap"), torch.float32, activations="int8")
    assert refusal(rounded, HOST, registry) == "int8 activations need integer weights"
    integers = KernelSpec(registry.format("bitmap/int8"), torch.float32)
    assert refusal(integers, HOST, registry) == "the values of int8 are not floats as they are"
    assert refusal(spec, HOST, Registry()) == "no C++ fragment reads 'bitmap'"
    ListsLinear().supports(spec, Target("cpu", "x86_64", "portable"), registry)


@pytest.mark.parametrize("coding", [None, *OTHERS])
def test_refuses_codings_that_it_does_not_read(coding: Coding | None, registry: Registry) -> None:
    spec = KernelSpec(Format(Bitmap(), Coded(coding)), torch.float32)
    assert refusal(spec, HOST, registry) == "the values of float are not floats as they are"


def build(name: str, dtype: torch.dtype, registry: Registry) -> Kernel:
    spec, template = KernelSpec(registry.format(name), dtype), ListsLinear()
    schedule = template.schedules(spec, HOST)[0]
    return CppCodegen().build(spec, template, schedule, HOST, registry)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("shared_cache")
def test_the_cost_is_what_the_layout_takes(dtype: torch.dtype, registry: Registry) -> None:
    kernel = build("bitmap", dtype, registry)
    n, k = 300, 700
    weight = torch.randn(n, k).to(dtype)
    packed = kernel.spec.format.pack(weight * kernel.spec.format.structure.prune(weight, 0.9))
    cost = ListsLinear().cost(kernel.spec, kernel.schedule, Contents(packed))
    offsets = 8 * -(-n // 128) * (-(-k // 256) + 1)
    assert kernel.prepack(packed).numel() == HEADER_BYTES + offsets + cost.moved(0) + 64


@pytest.mark.parametrize("m", [1, 3, 20])
@pytest.mark.usefixtures("shared_cache")
def test_infinities_meet_nothing_but_what_is_kept(m: int, registry: Registry) -> None:
    """The last vector of a list ends in the next one, whose row keeps what this one does not."""
    kernel = build("bitmap", torch.float32, registry)
    weight = torch.randn(130, 300)
    weight[::2, 2], weight[1::2, 3], weight[:, 100:] = 0, 0, 0
    packed = kernel.spec.format.pack(weight)
    x = torch.randn(m, 300)
    x[:, 2] = torch.inf
    y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 130, kernel.key)
    assert y[:, ::2].isfinite().all()
    assert y[:, 1::2].isinf().all()


@pytest.mark.usefixtures("shared_cache")
def test_rows_of_every_length(registry: Registry) -> None:
    """From nothing to all of a block of columns: counts are what blocks are sorted by."""
    kernel = build("bitmap", torch.float32, registry)
    n, k = 200, 257
    weight = torch.randn(n, k) * (torch.arange(k) < (torch.arange(n) * 37 % (k + 1))[:, None])
    weight[3], weight[-1] = torch.randn(k), 0
    layout = kernel.prepack(kernel.spec.format.pack(weight))
    assert torch.equal(
        torch.ops.sparsecompile.unpack(layout, weight, n, k, kernel.key).view(torch.int32),
        weight.where(weight != 0, 0).view(torch.int32),
    )
    for m in (1, 2, 70):
        x = torch.randn(m, k)
        got, want = linear(x, layout, None, (), n, kernel.key), x.double() @ weight.double().T
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_a_negative_zero_that_is_stored_stays_one(registry: Registry, shared_cache: Any) -> None:
    kernel = build("n_m[2:4]", torch.float32, registry)
    weight = torch.tensor([[-0.0, 1.0, 0.0, 0.0]])
    packed = kernel.spec.format.pack(weight)
    layout = kernel.prepack(packed)
    got = torch.ops.sparsecompile.unpack(layout, weight, 1, 4, kernel.key)
    assert torch.equal(got.view(torch.int32), packed.unpack().view(torch.int32))
