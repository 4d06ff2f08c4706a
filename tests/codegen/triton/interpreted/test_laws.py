"""Every template x structure x codec x epilogue against float64 on the unpacked weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kernel_cases import EPILOGUES, covering, kind
from linear_law import sparse_weight
from torch import Tensor
from triton_cases import CODECS, H100, STRUCTURES, TEMPLATES, build, specs, template_of
from triton_rows import own_registry, weight_without_rows

from sparsecompile.codegen.triton.epilogues import EXPRESSIONS
from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.start import start_linear, start_unpack
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.epilogue import STEPS
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.registry import default_registry

DTYPES = (torch.float16, torch.float32, torch.bfloat16)
SPECS = tuple(specs(DTYPES))


def facts(spec: KernelSpec) -> Iterator[object]:
    """Every structure and codec; all pairs of their kinds, and of templates with the rest."""
    structure, codec = spec.format.structure, spec.format.codec
    yield from (structure, codec, (kind(structure), kind(codec)))
    rest = (spec.dtype, spec.epilogue, spec.activations)
    yield from ((template_of(spec), part) for part in rest)


COVERING = covering(SPECS, facts)
TEMPLATES_BY_NAME = {template.name: template for template in TEMPLATES}
Check = Callable[..., tuple[Tensor, float]]
# What the GPU does without a word.
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in:RuntimeWarning"),
]


def pack(spec: KernelSpec, n: int, k: int) -> Packed:
    return spec.format.pack(sparse_weight(spec.format.structure, n, k, spec.dtype))


def check_unpack(kernel: TritonKernel, packed: Packed, first: int) -> None:
    (n, k), layout = packed.shape, kernel.prepack(packed)
    for dtype, start in ((packed.dtype, 0), (torch.float32, first)):
        last = min(n, start + 18)
        like, want = torch.empty(0, dtype=dtype), packed.unpack(dtype)
        got = start_unpack(kernel, layout, like, last - start, k, start, {})
        assert torch.equal(got, want[start:last])


def test_the_cases_leave_nothing_out() -> None:
    assert {template_of(spec) for spec in SPECS} == set(TEMPLATES)
    assert set(EXPRESSIONS) == set(STEPS)
    assert {spec.dtype for spec in SPECS} == set(DTYPES)
    assert {spec.epilogue for spec in SPECS} == set(EPILOGUES)
    assert {spec.activations for spec in SPECS} == set(ACTIVATIONS)
    served = {(spec.format.structure, spec.format.codec) for spec in SPECS}
    assert served == set(product(STRUCTURES, CODECS))


@pytest.mark.parametrize("spec", COVERING, ids=str)
def test_every_structure_and_codec(spec: KernelSpec, check_launch: Check) -> None:
    kernel, turn = build(spec), COVERING.index(spec)
    n, k = ((18, 140), (17, 64), (33, 37), (5, 129))[turn % 4]
    packed = pack(spec, n, k)
    check_unpack(kernel, packed, turn % 4)
    launch = kernel.launches[turn % len(kernel.launches)]
    m = 1 if launch.largest_m == 1 else (3, 18, 2)[turn % 3]
    check_launch(kernel, launch, packed, (m,) if turn % 2 else (1, m), turn % 3 != 0)


@pytest.mark.parametrize(("scales", "dtype"), [("float16", DTYPES[1]), ("float32", DTYPES[2])])
@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("dense/int8[", "int8"),
        ("dense/int8[group=128,", "int8"),
        ("n_m[2:4]/int4[group=32,", "float"),
        ("csr/int4[", "float"),
        ("block[16x16]/int8[group=32,", "float"),
    ],
)
def test_scales_of_every_dtype(
    name: str, activations: str, scales: str, dtype: torch.dtype, check_launch: Check
) -> None:
    format = default_registry().format(f"{name}scales={scales}]")
    spec = KernelSpec(format, dtype, activations=activations)
    kernel, packed = build(spec), pack(spec, 18, 140)
    check_unpack(kernel, packed, 3)
    for launch in kernel.launches:
        check_launch(kernel, launch, packed, (1 if launch.largest_m == 1 else 3,), True)


@pytest.mark.parametrize("name", ["n_m[2:4]", "bitmap", "block[32x32]", "csr"])
def test_every_schedule_of_a_search(name: str, check_launch: Check) -> None:
    spec = KernelSpec(default_registry().format(name), torch.float16)
    template, packed = template_of(spec), pack(spec, 20, 140)
    assert template is not None
    done = set()
    for schedule in template.search(spec, H100):
        kernel = TritonCodegen().build(spec, template, schedule, H100, default_registry())
        for launch in kernel.launches:
            if replace(launch, source="") not in done:
                done.add(replace(launch, source=""))
                check_launch(kernel, launch, packed, (1 if launch.largest_m == 1 else 3,), False)
    assert len(done) > 2 * len(kernel.launches)


@pytest.mark.parametrize("name", TEMPLATES_BY_NAME)
@given(data=st.data())
@settings(max_examples=20, phases=(Phase.explicit, Phase.generate))
def test_any_format_epilogue_and_shape(name: str, data: st.DataObject, check_launch: Check) -> None:
    own = [spec for spec in SPECS if template_of(spec) is TEMPLATES_BY_NAME[name]]
    dtype, epilogue = (data.draw(st.sampled_from(all_of)) for all_of in (DTYPES, EPILOGUES))
    spec = replace(data.draw(st.sampled_from(own)), dtype=dtype, epilogue=epilogue)
    kernel = build(spec)
    n, k = data.draw(st.integers(0, 34)), data.draw(st.integers(0, 150))
    packed = pack(spec, n, k)
    check_unpack(kernel, packed, data.draw(st.integers(0, n)))
    launch = data.draw(st.sampled_from(kernel.launches))
    lead = data.draw(st.sampled_from(((1,), (0,), (1, 1), (3,), (2, 3), (17,))))
    rows = torch.Size(lead).numel()
    if launch.largest_m is None or rows <= launch.largest_m:
        check_launch(kernel, launch, packed, lead, data.draw(st.booleans()))


@pytest.mark.parametrize("name", ["dense/int8", "csr/int4"])
def test_rows_that_cannot_be_rounded_are_nan_and_small_ones_are_zero(name: str) -> None:
    spec = KernelSpec(default_registry().format(name), torch.float32, activations="int8")
    kernel, packed = build(spec), pack(spec, 8, 40)
    x = torch.randn(5, 40)
    x[0, 3], x[1, 4], x[2], x[3], x[4] = float("nan"), float("inf"), 0, 1e-45, 1e30
    layout = kernel.prepack(packed)
    y = start_linear(kernel, kernel.launches[-1], x, layout, None, (None, None), 8, _same, {})
    want = torch.nn.functional.linear(ACTIVATIONS["int8"](x), packed.unpack())
    assert torch.equal(y.isnan(), want.isnan())
    assert bool(y[:2].isnan().all())
    assert not y[2:4].any()
    largest = want[4].abs().max()
    torch.testing.assert_close(y[4] / largest, want[4] / largest)


@pytest.mark.parametrize("codec", ["float", "int4[group=32]"])
def test_a_structure_of_a_registry_of_its_own(codec: str, check_launch: Check) -> None:
    registry, template = own_registry(), TEMPLATES_BY_NAME["tiles"]
    spec = KernelSpec(registry.format(f"kept_rows/{codec}"), torch.float32, ("relu",))
    schedule = template.schedules(spec, H100)[0]
    kernel = TritonCodegen().build(spec, template, schedule, H100, registry)
    packed = spec.format.pack(weight_without_rows(20, 140))
    check_unpack(kernel, packed, 4)
    for launch in kernel.launches[:2]:
        check_launch(kernel, launch, packed, (1,), True)


def test_padding_may_take_a_tile_of_its_own(check_launch: Check) -> None:
    # The last group has columns 126 to 132 and 3 slots, one of them behind the only tile.
    spec = KernelSpec(default_registry().format("n_m[3:7]"), torch.float32)
    kernel, packed = build(spec), pack(spec, 18, 127)
    check_unpack(kernel, packed, 3)
    check_launch(kernel, kernel.launches[1], packed, (3,), True)


def test_a_band_writes_its_own_rows_only() -> None:
    # Programs run one after the other here, and the next would hide what does not belong to one.
    spec = KernelSpec(default_registry().format("block[3x20]"), torch.float32)
    kernel, packed = build(spec), pack(spec, 9, 40)
    layout, x, y = kernel.prepack(packed), torch.randn(2, 40), torch.full((2, 9), 7.0)
    sizes = {"BLOCK_N": 3, "BLOCK_M": 16, "SPLITS": 1}
    kernel.module.linear[(1, 1, 1)](x, None, layout, *[None] * 3, y, 2, 9, 40, 40, **sizes)
    torch.testing.assert_close(y[:, :3], torch.nn.functional.linear(x, packed.unpack())[:, :3])
    assert bool((y[:, 3:] == 7).all())
    dense = torch.full((9, 40), 7.0)
    kernel.module.unpack[(1, 1)](layout, dense, 0, 9, 40, BLOCK_N=16)
    assert bool((dense[3:] == 7).all())


def test_special_values_survive(check_launch: Check) -> None:
    weight = torch.randn(16, 130)
    weight[:, 1::2] = 0
    weight[3, 4], weight[5, 128], weight[7, 0] = float("nan"), float("inf"), -1e-45
    for name in ("bitmap", "csr", "n_m[1:2]", "n_m[5:10]", "block[16x1]", "block[2x1]"):
        spec = KernelSpec(default_registry().format(name), torch.float32)
        kernel = build(spec)
        layout = kernel.prepack(spec.format.pack(weight))
        got = start_unpack(kernel, layout, torch.empty(0), 16, 130, 0, {})
        assert torch.equal(got.nan_to_num(7), weight.nan_to_num(7))
        assert torch.equal(got.isnan(), weight.isnan())


def test_rows_that_are_far_apart() -> None:
    spec = KernelSpec(default_registry().format("n_m[2:4]"), torch.float16)
    kernel, packed = build(spec), pack(spec, 4, 32)
    # The stride fits in 32 bits, three of it do not. Memory that nobody touches takes none.
    stride = 2**30
    x = torch.empty(3 * stride + 32, dtype=torch.float16).as_strided((4, 32), (stride, 1))
    x.copy_(torch.randn(4, 32))
    layout, weight = kernel.prepack(packed), packed.unpack()
    y = start_linear(kernel, kernel.launches[1], x, layout, None, (None, None), 4, _same, {})
    torch.testing.assert_close(y, torch.nn.functional.linear(x, weight), rtol=2e-3, atol=2e-3)


def test_layouts_begin_with_their_shape() -> None:
    spec = KernelSpec(default_registry().format("csr/int4"), torch.float16)
    packed = pack(spec, 9, 33)
    layout = build(spec).prepack(packed)
    assert layout[:24].view(torch.int64).tolist() == [9, 33, packed.slots]
    assert layout.numel() % 16 == 0


def _same(function: object) -> object:
    return function
