"""Default schedules compiled with no GPU: no spills, and the matrix instruction expected."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from triton_cases import TEMPLATES, build, template_of
from triton_compiled import Compiled, compile_function, compile_launch

from sparsecompile.codegen.triton.signature import Signature, linear_signature
from sparsecompile.registry import default_registry
from sparsecompile.spec import KernelSpec, Target

ARCHES = ("sm_80", "sm_90", "gfx942")
CASES = (
    ("n_m[2:4]", torch.float16, "float"),
    ("dense/int8", torch.bfloat16, "int8"),
    ("bitmap", torch.float16, "float"),
    ("block[16x16]", torch.bfloat16, "float"),
    ("csr", torch.float16, "float"),
)
MATRIX = {
    ("sm_80", "float"): r"HMMA\.16816",
    ("sm_80", "int8"): r"IMMA\.16832",
    # wgmma is 64 rows high; what is lower goes through the older instruction.
    ("sm_90", "float"): r"HGMMA\.64x|HMMA\.16816",
    ("sm_90", "int8"): r"IGMMA\.64x",
    ("gfx942", "float"): r"v_mfma_f32_\w*(f16|bf16)",
    ("gfx942", "int8"): r"v_mfma_i32_\w*i8",
}


@pytest.fixture(scope="module", autouse=True)
def _own_compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def spec_of(name: str, dtype: torch.dtype, activations: str = "float") -> KernelSpec:
    return KernelSpec(default_registry().format(name), dtype, activations=activations)


def test_every_template_is_compiled() -> None:
    assert {template_of(spec_of(*case)) for case in CASES} == set(TEMPLATES)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("name", "dtype", "activations"), CASES)
def test_default_schedules(name: str, dtype: torch.dtype, activations: str, arch: str) -> None:
    kernel = build(spec_of(name, dtype, activations), Target.parse(arch))
    has_dot = "tl.dot" in kernel.sources[0].text
    # Of what differs by its number of tokens only, the largest.
    launches = {(launch.function, launch.block_m): launch for launch in kernel.launches}
    for launch in launches.values():
        compiled = compile_launch(kernel, launch, arch)
        assert compiled.spilled == 0, launch
        assert compiled.stack == 0, launch
        if launch.largest_m != 1 and has_dot:
            assert compiled.matrix, launch
            for instruction in compiled.matrix:
                assert re.match(MATRIX[arch, activations], instruction), launch


def few(name: str, arch: str) -> Compiled:
    kernel = build(spec_of(name, torch.float16), Target.parse(arch))
    launch = next(launch for launch in kernel.launches if launch.symbol == "few")
    assert (launch.block_m, launch.block_n, launch.warps) == (16, 64, 4)
    return compile_launch(kernel, launch, arch)


def test_2_4_on_sm_90_has_w_in_registers() -> None:
    compiled = few("n_m[2:4]", "sm_90")
    assert compiled.registers <= 128
    instructions = re.findall(r"wgmma\.mma_async\S+ (.*);", compiled.text)
    # The sums, then W in four registers; from shared memory it would be one descriptor.
    register = r"%r\w*\d+"
    four = rf"\{{\s*{register}(,\s*{register}){{3}}\s*\}}"
    assert instructions
    for operands in instructions:
        assert re.match(rf"\{{[^}}]*\}},\s*{four},", operands), operands


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_words_are_loaded_sixteen_bytes_at_once(arch: str) -> None:
    # A row of a tile has four words.
    compiled = few("n_m[2:4]", arch)
    assert re.search(
        r"cp\.async\.c[ag]\.shared\.global[^;]*, 0x10|ld\.global\S*\.v4\.b32", compiled.text
    )
    assert not re.search(
        r"ld\.global\S*\.b(8|16) ", compiled.text.split("wgmma")[0].split("mma.")[0]
    )


def test_offsets_have_64_bits() -> None:
    kernel = build(spec_of("n_m[2:4]", torch.float16))
    for launch in kernel.launches:
        ir = compile_launch(kernel, launch, "sm_80").ir
        products = re.findall(r"arith\.muli .*: (tensor<[\dx]*)?(i\d+)", ir)
        assert "i64" in {width for _, width in products}
        # Of x, W and y: what is added to a pointer with rows in it is never 32 bits wide.
        wide = re.findall(r"tt\.addptr .*, (tensor<[^>]*i64>|i64)", ir)
        assert len(wide) >= 3


@pytest.mark.parametrize("splits", [1, 4])
def test_sizes_of_one_are_constants(splits: int) -> None:
    # Triton makes a constant of every size that is 1.
    kernel = build(spec_of("dense/int8[group=32]", torch.float16))
    launch = kernel.launches[1]
    usual = linear_signature(kernel.spec, launch, splits=splits)
    sizes = {"m": 1, "n": 1, "k": 1, "x_stride": 1}
    types = {**usual.types, **dict.fromkeys(sizes, "constexpr")}
    divisible = tuple(name for name in usual.divisible if name not in sizes)
    signature = Signature(types, {**usual.constants, **sizes}, divisible)
    options = {"num_warps": launch.warps, "enable_fp_fusion": True}
    assert compile_function(kernel, launch.function, signature, "sm_90", options).asm["cubin"]
