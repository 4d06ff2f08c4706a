"""The generic template: every structure, dtype, epilogue step and shape against float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from codings import Coded
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import KernelCase
from torch.nn import functional as F

from sparsecompile import Bitmap
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.prologue import quantize_activation
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Fragment
from sparsecompile.registry import Registry

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Build = Callable[..., Kernel]
Pack = Callable[..., Packed]
Check = Callable[..., None]


def check_shapes(kernel: Kernel, pack: Pack, check: Check) -> None:
    for n, k in ((80, 192), (37, 101), (5, 7), (1, 1)):
        packed = pack(kernel, n, k)
        like = torch.empty(0, dtype=packed.dtype)
        dense = torch.ops.sparsecompile.unpack(kernel.prepack(packed), like, n, k, kernel.key)
        assert torch.equal(dense.view(torch.uint8), packed.unpack().view(torch.uint8))
        for m in (0, 1, 2, 3, 17, 64, 130):
            check(kernel, packed, (m,), with_bias=m % 2 == 1)


@pytest.mark.parametrize(
    ("name", "dtype", "epilogue"),
    [
        ("dense/int8", torch.float32, ()),
        ("n_m[2:4]/int4[group=32]", torch.bfloat16, ("silu", "mul")),
        ("csr", torch.float16, ("add",)),
    ],
)
def test_activations_in_eight_bits(
    name: str,
    dtype: torch.dtype,
    epilogue: tuple[str, ...],
    build: Build,
    pack: Pack,
    check_linear: Check,
) -> None:
    kernel = build(name, dtype, *epilogue, activations="int8")
    check_shapes(kernel, pack, check_linear)
    # Several panels, each with the scales of its own rows.
    check_linear(kernel, pack(kernel, 40, 136), (1100,), with_bias=True)


def test_a_codec_that_has_no_coding(
    build_case: Callable[..., Kernel], pack: Pack, check_linear: Check
) -> None:
    template, target = GenericLinear(), Target.host()
    spec = KernelSpec(Format(Bitmap(), Coded(None)), torch.float32)
    kernel = build_case(KernelCase(template, template.schedules(spec, target)[0], spec))
    check_linear(kernel, pack(kernel, 37, 101), (3,), with_bias=True)


def test_rows_that_cannot_be_rounded_are_nan_and_small_ones_are_zero(
    build: Build, pack: Pack
) -> None:
    kernel = build("dense/int8", torch.float32, activations="int8")
    packed = pack(kernel, 8, 40)
    x = torch.randn(12, 40)
    x[0, 3], x[1, 4], x[2], x[3], x[4] = float("nan"), float("inf"), 0, 1e-45, 1e30
    header = kernel.prepack(packed)[: ops.HEADER_BYTES]
    for rows in (x[:5], x):
        y = ops.linear(rows, header, None, (), 8, kernel.key)
        want = F.linear(quantize_activation(rows), packed.unpack())
        assert torch.equal(y.isnan(), want.isnan())
        assert bool(y[:2].isnan().all())
        assert not y[2:4].any()
        largest = want[4:].abs().amax(1, keepdim=True)
        torch.testing.assert_close(y[4:] / largest, want[4:] / largest)


@given(data=st.data())
def test_any_shape(data: st.DataObject, build: Build, pack: Pack, check_linear: Check) -> None:
    name = data.draw(st.sampled_from(("n_m[2:4]", "block[3x5]", "csr")))
    n, k = data.draw(st.integers(0, 90)), data.draw(st.integers(0, 300))
    lead = tuple(data.draw(st.lists(st.integers(0, 9), max_size=3)))
    kernel = build(name, torch.float32)
    check_linear(kernel, pack(kernel, n, k), lead, data.draw(st.booleans()))


def test_special_values_survive_packing_and_unpacking(build: Build) -> None:
    for dtype in DTYPES:
        kernel = build("csr", dtype)
        integers = torch.int32 if dtype == torch.float32 else torch.int16
        bits = torch.randint(-(2**15), 2**15, (64, 64)).to(integers)
        if dtype == torch.float32:
            bits = bits << 16 | torch.randint(0, 2**16, (64, 64)).to(integers)
        packed = kernel.spec.format.pack(bits.view(dtype))
        layout = kernel.prepack(packed)
        dense = torch.ops.sparsecompile.unpack(layout, bits.view(dtype), 64, 64, kernel.key)
        expected = packed.unpack()
        nan = expected.isnan()
        assert torch.equal(dense.isnan(), nan)
        assert torch.equal(dense.view(integers)[~nan], expected.view(integers)[~nan])


def test_layouts_hold_the_packed_tensors(build: Build, pack: Pack) -> None:
    kernel = build("n_m[2:4]", torch.bfloat16)
    packed = pack(kernel, 48, 128)
    layout = kernel.prepack(packed)
    assert layout.data_ptr() % 64 == 0
    header = layout[:128].view(torch.int64).tolist()
    assert header[1:4] == [48, 128, packed.values["values"].numel()]
    assert header[4] == layout.numel()
    assert header[5] == len(packed.tensors)
    for offset, tensor in zip(header[6:], packed.tensors.values(), strict=False):
        raw = tensor.reshape(-1).view(torch.uint8)
        assert torch.equal(layout[offset : offset + raw.numel()], raw)


def test_refuses_other_devices_and_missing_fragments(registry: Registry) -> None:
    template, spec = GenericLinear(), KernelSpec(registry.format("csr"), torch.float32)
    with pytest.raises(Reject, match="C\\+\\+ is for CPUs, not for cuda"):
        template.supports(spec, Target("cuda", "sm_90", "sm_90"), registry)
    with pytest.raises(Reject, match="no C\\+\\+ fragment reads 'csr'"):
        template.supports(spec, Target.host(), Registry())
    with pytest.raises(Reject, match="float64 activations have no C\\+\\+ type"):
        template.supports(KernelSpec(spec.format, torch.float64), Target.host(), registry)
    strange = KernelSpec(spec.format, torch.float32, activations="int3")
    with pytest.raises(Reject, match="no C\\+\\+ rounds activations to 'int3'"):
        template.supports(strange, Target.host(), registry)


def test_refuses_a_fragment_of_another_kind(registry: Registry) -> None:
    class Plain(Fragment):
        language, family = "cpp", "csr"

        def render(self, part: object, spec: KernelSpec) -> str:
            return ""

    spec = KernelSpec(registry.format("csr"), torch.float32)
    with pytest.raises(Reject, match="is not a CppFragment"):
        GenericLinear().supports(spec, Target.host(), Registry(Plain()))


@pytest.mark.parametrize("ratio", ["1:3", "3:7", "2:16", "5:32", "3:4"])
def test_ratios_that_are_not_built_in(
    ratio: str, build: Build, pack: Pack, check_linear: Check
) -> None:
    check_shapes(build(f"n_m[{ratio}]", torch.float32), pack, check_linear)


@pytest.mark.parametrize("block", ["3x5", "2x2", "4x128"])
def test_blocks_that_are_not_built_in(
    block: str, build: Build, pack: Pack, check_linear: Check
) -> None:
    check_shapes(build(f"block[{block}]", torch.float32), pack, check_linear)


def test_source_is_the_same_every_time(registry: Registry) -> None:
    template = GenericLinear()
    spec = KernelSpec(
        Format(registry.structure("n_m[2:4]"), registry.format("csr").codec), DTYPES[0]
    )
    target = Target("cpu", "x86_64", "avx2")
    schedule = template.schedules(spec, target)[0]
    first, second = (template.render(spec, schedule, target, registry) for _ in range(2))
    assert first == second
    assert "avx2" in first.text
