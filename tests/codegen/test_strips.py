"""The strips template: what it refuses, its schedules, and what its layouts take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from codings import Coded
from kernel_cases import KernelCase, drawn, drawn_cases

from sparsecompile import Bitmap, Format
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import HEADER_BYTES, linear
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

# The cost of scales of groups is what they take at most: up to a tenth more.
WITHOUT_GROUPS = [
    case
    for case in drawn_cases()
    if case.template.name == "strips" and "group" not in str(case.spec.format.codec)
]
AVX2, AMX = Target("cpu", "x86_64", "avx2"), Target("cpu", "x86_64", "amx")


def refusal(spec: KernelSpec, target: Target, registry: Registry) -> str:
    with pytest.raises(Reject) as caught:
        StripsLinear().supports(spec, target, registry)
    return caught.value.reason


def test_refuses_other_devices_and_older_instruction_sets(registry: Registry) -> None:
    spec = KernelSpec(registry.format("bitmap"), torch.float32)
    assert "not for cuda" in refusal(spec, Target("cuda", "sm_90", "sm_90"), registry)
    oldest = Target("cpu", "x86_64", "portable")
    assert refusal(spec, oldest, registry) == "needs AVX2, the target is portable"


@pytest.mark.parametrize("name", ["bitmap/int8", "dense/int4[group=32]"])
def test_integers_without_vnni_are_built_for_avx2(name: str, registry: Registry) -> None:
    template, wide = StripsLinear(), replace(AVX2, isa="avx512")
    spec = KernelSpec(registry.format(name), torch.bfloat16)
    template.supports(spec, wide, registry)
    for schedule in template.schedules(spec, wide):
        source = template.render(spec, schedule, wide, registry)
        assert source == template.render(spec, schedule, AVX2, registry)
        assert source.isa == "avx2"
    values = KernelSpec(registry.format("bitmap"), torch.float32)
    schedule = template.schedules(values, wide)[0]
    assert template.render(values, schedule, wide, registry).isa == "avx512"


def test_refuses_what_it_cannot_store(registry: Registry) -> None:
    odd = KernelSpec(registry.format("bitmap/int8[group=48]"), torch.float32)
    assert refusal(odd, AMX, registry) == "groups of 48 columns are not whole tiles of 32"
    rounded = KernelSpec(registry.format("bitmap"), torch.float32, activations="int8")
    assert refusal(rounded, AMX, registry) == "int8 activations need integer weights"
    double = KernelSpec(registry.format("bitmap"), torch.float64)
    assert refusal(double, AMX, registry) == "torch.float64 activations have no C++ type"
    missing = KernelSpec(registry.format("bitmap"), torch.float32)
    assert refusal(missing, AMX, Registry()) == "no C++ fragment reads 'bitmap'"


@pytest.mark.parametrize(
    ("coding", "reason"),
    [
        (None, "float does not say how a value is coded"),
        (Coding(4, "table", table_rows=8), "tables of 8 rows are not of whole strips of 16"),
    ],
)
def test_refuses_codings_that_it_does_not_read(
    coding: Coding | None, reason: str, registry: Registry
) -> None:
    spec = KernelSpec(Format(Bitmap(), Coded(coding)), torch.float32)
    assert refusal(spec, AMX, registry) == reason


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512_bf16", "amx"])
def test_what_is_done_or_not_is_one_or_zero(isa: str, registry: Registry) -> None:
    template, target = StripsLinear(), replace(AVX2, isa=isa)
    names = ("masked", "lists", "paired", "skips", "repeats_rows", "uses_amx", "decode_pairs")
    for name, activations in (
        *product(("n_m[2:4]/int8", "bitmap/int4[group=128]", "dense/int4"), ("float", "int8")),
        *product(("n_m[2:4]", "bitmap"), ("float",)),
    ):
        spec = KernelSpec(registry.format(name), torch.bfloat16, activations=activations)
        for schedule in template.schedules(spec, target):
            assert {schedule[name] for name in names} <= {0, 1}


@pytest.mark.parametrize("target", [AVX2, AMX], ids=str)
def test_schedules_of_a_full_search_read_the_default_layouts(
    target: Target, registry: Registry
) -> None:
    template = StripsLinear()
    for name in ("dense/int8", "n_m[2:4]", "block[16x16]"):
        spec = KernelSpec(registry.format(name), torch.bfloat16)
        defaults, searched = template.schedules(spec, target), template.search(spec, target)
        assert set(defaults) < set(searched)
        assert len(set(searched)) == len(searched)
        assert {*map(template.layout, searched)} == {*map(template.layout, defaults)}


@pytest.mark.parametrize("case", drawn(WITHOUT_GROUPS, 4))
def test_the_cost_is_what_the_layout_takes(
    case: KernelCase, build_case: Callable[..., Kernel]
) -> None:
    """Within headers, the scales of lanes, and what strips are rounded up to."""
    spec = case.spec
    structure, weight = spec.format.structure, torch.randn(256, 2048).to(spec.dtype)
    if structure.family != "dense":
        weight *= structure.prune(weight, None if structure.family == "n_m" else 0.7)
    packed = spec.format.pack(weight)
    expected = case.template.cost(spec, case.schedule, Contents(packed)).moved(0)
    assert build_case(case).prepack(packed).numel() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("m", [1, 4, 20])
@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_of_x_that_is_not_finite_gives_no_finite_numbers(
    bad: float, activations: str, m: int, registry: Registry
) -> None:
    spec = KernelSpec(registry.format("dense/int8"), torch.bfloat16, activations=activations)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    kernel = CppCodegen().build(
        spec, template, template.schedules(spec, target)[0], target, registry
    )
    packed = spec.format.pack(torch.randn(40, 96).bfloat16().clamp(0.5))
    x = torch.randn(m, 96).bfloat16()
    x[m - 1, 37] = bad
    y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 40, kernel.key)
    assert not y[m - 1].isfinite().any()
    assert y[: m - 1].isfinite().all()


@pytest.mark.parametrize("m", [191, 192, 224])
def test_rows_that_take_too_much_room_for_each_thread(m: int, registry: Registry) -> None:
    """Of 28000 columns three threads pack 192 rows each for itself, 191 and 224 together."""
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.bfloat16)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    schedule = template.schedules(spec, target)[0]
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    weight = torch.zeros(70, 28_000, dtype=torch.bfloat16)
    weight[:, ::7] = 1
    packed = spec.format.pack(weight)
    x = torch.randint(-1, 2, (m, 28_000)).bfloat16()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 70, kernel.key)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, x[:, ::7].float().sum(1, keepdim=True).bfloat16().expand(m, 70))


@pytest.mark.parametrize("m", [2, 20])
@pytest.mark.parametrize("name", ["dense/int8", "n_m[2:4]/int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_tiny_activations_are_not_zero(
    name: str, m: int, dtype: torch.dtype, registry: Registry
) -> None:
    """A scale that is subnormal has no inverse."""
    spec = KernelSpec(registry.format(name), dtype)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    schedule = template.schedules(spec, target)[0]
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    weight = torch.randn(40, 96).to(dtype)
    weight[:, 1::2] = 0
    packed, x = spec.format.pack(weight), (torch.randn(m, 96) * 1e-35).to(dtype)
    y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 40, kernel.key)
    exact = x.double() @ packed.unpack(torch.float32).double().T
    assert (y.double() - exact).abs().max() <= exact.abs().max() * 2**-7


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("name", ["dense/int8", "bitmap/int4", "n_m[2:4]/int4[group=32]"])
def test_elements_beside_a_large_one_keep_its_31_bits(
    name: str, m: int, registry: Registry
) -> None:
    """The weight has nothing in the large one's column, so that it hides no error."""
    spec = KernelSpec(registry.format(name), torch.float32)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    weight, x = torch.randn(40, 96), torch.randn(m, 96)
    weight[:, 1::2] = 0
    x[:, 1] = 1e6
    packed = spec.format.pack(weight)
    dense = packed.unpack(torch.float32).double().T
    for schedule in template.schedules(spec, target):
        kernel = CppCodegen().build(spec, template, schedule, target, registry)
        y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 40, kernel.key)
        allowed = 1e6 * 2**-31 * dense.abs().sum(0) + 1e-6 * (x.double().abs() @ dense.abs())
        assert ((y.double() - x.double() @ dense).abs() <= allowed).all()


# Where AVX2 repeats the loops for few rows, and where it expands W first.
@pytest.mark.parametrize("m", [1, 9, 20])
@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize(
    "name", ["dense/int8", "dense/int8[group=384]", "bitmap/int8", "n_m[2:4]/int8"]
)
def test_the_largest_integers_do_not_overflow(
    name: str, activations: str, m: int, registry: Registry
) -> None:
    """Products are as large as they can be, of one sign, and groups have scales of their own."""
    spec = KernelSpec(registry.format(name), torch.bfloat16, activations=activations)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    weight = (1 + torch.arange(4608) // 384 % 2).bfloat16().repeat(40, 1)
    if name.startswith(("n_m", "bitmap")):
        weight[:, 1::2] = 0
    packed, x = spec.format.pack(weight), torch.ones(m, 4608, dtype=torch.bfloat16)
    exact = weight.float().sum(1).expand(m, 40)
    schedule = template.schedules(spec, target)[0]
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    y = linear(x, kernel.prepack(packed)[:HEADER_BYTES], None, (), 40, kernel.key)
    assert (y.float() / exact - 1).abs().max() <= 2**-7


@pytest.mark.parametrize("m", [2, 20])
@pytest.mark.parametrize("name", ["dense/int8", "bitmap/int8"])
def test_no_number_of_columns_makes_integers_overflow(
    name: str, m: int, registry: Registry
) -> None:
    """127 * 127 * 140000 is more than 32 bits hold."""
    spec = KernelSpec(registry.format(name), torch.float32, activations="int8")
    template, target, k = StripsLinear(), Target.host(), 140_000
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    schedule = template.schedules(spec, target)[0]
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    weight = torch.ones(20, k)
    weight[1::2] = -1
    y = linear(
        torch.ones(m, k),
        kernel.prepack(spec.format.pack(weight))[:HEADER_BYTES],
        None,
        (),
        20,
        kernel.key,
    )
    assert (y / (weight[:, 0] * k) - 1).abs().max() <= 2**-7


@pytest.mark.parametrize(
    ("name", "dtype"), [("bitmap", torch.float32), ("bitmap/int8", torch.bfloat16)]
)
def test_strips_with_other_tiles_are_not_taken_for_the_same(
    name: str, dtype: torch.dtype, registry: Registry
) -> None:
    spec = KernelSpec(registry.format(name), dtype)
    template, target = StripsLinear(), Target.host()
    try:
        template.supports(spec, target, registry)
    except Reject as reject:
        pytest.skip(reject.reason)
    schedule = next(s for s in template.schedules(spec, target) if s["skips"])
    kernel = CppCodegen().build(spec, template, schedule, target, registry)
    weight, rows = torch.zeros(64, 256, dtype=dtype), schedule["strip_rows"]
    for strip in range(64 // rows):
        weight[strip * rows : (strip + 1) * rows, strip * 32 : strip * 32 + 5] = 1
    x = torch.randint(-3, 4, (20, 256)).to(dtype)
    packed = spec.format.pack(weight)
    layout = kernel.prepack(packed)[:HEADER_BYTES]
    exact = x.double() @ packed.unpack(torch.float32).double().T
    y = linear(x, layout, None, (), 64, kernel.key).double()
    # Five products of at most 3 each; a tile that is not there would give all of them.
    assert (y - exact).abs().max() <= 15 * torch.finfo(dtype).eps
