"""Kernels compiled with no GPU: the widths of loads and offsets, and sizes of one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from triton_cases import build
from triton_compiled import compile_function, compile_launch

from sparsecompile.codegen.triton.signature import Signature, linear_signature
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry


@pytest.fixture(scope="module", autouse=True)
def _own_compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def spec_of(name: str) -> KernelSpec:
    return KernelSpec(default_registry().format(name), torch.float16)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_words_are_loaded_sixteen_bytes_at_once(arch: str) -> None:
    # A row of a tile has four words.
    kernel = build(spec_of("n_m[2:4]"), Target.parse(arch))
    launch = next(launch for launch in kernel.launches if launch.symbol == "few")
    text = compile_launch(kernel, launch, arch)["ptx"]
    assert re.search(r"cp\.async\.c[ag]\.shared\.global[^;]*, 0x10|ld\.global\S*\.v4\.b32", text)
    assert not re.search(r"ld\.global\S*\.b(8|16) ", text.split("wgmma")[0].split("mma.")[0])


def test_offsets_have_64_bits() -> None:
    kernel = build(spec_of("n_m[2:4]"))
    for launch in kernel.launches:
        ir = compile_launch(kernel, launch, "sm_80")["ttir"]
        products = re.findall(r"arith\.muli .*: (tensor<[\dx]*)?(i\d+)", ir)
        assert "i64" in {width for _, width in products}
        # Of x, W and y: what is added to a pointer with rows in it is never 32 bits wide.
        wide = re.findall(r"tt\.addptr .*, (tensor<[^>]*i64>|i64)", ir)
        assert len(wide) >= 3


@pytest.mark.parametrize("splits", [1, 4])
def test_sizes_of_one_are_constants(splits: int) -> None:
    # Triton makes a constant of every size that is 1.
    kernel = build(spec_of("dense/int8[group=32]"))
    launch = kernel.launches[1]
    usual = linear_signature(kernel.spec, launch, splits=splits)
    sizes = {"m": 1, "n": 1, "k": 1, "x_stride": 1}
    types = {**usual.types, **dict.fromkeys(sizes, "constexpr")}
    divisible = tuple(name for name in usual.divisible if name not in sizes)
    signature = Signature(types, {**usual.constants, **sizes}, divisible)
    options = {"num_warps": launch.warps, "enable_fp_fusion": True}
    assert compile_function(kernel, launch.function, signature, "sm_90", options).asm["cubin"]
