"""Gates of attention: the default schedules of its kernels, and how masks are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
from spilling import check_no_faults

from sparsecompile.bench.aot.cases import Case, parse_spec, registry_cases, report_cases
from sparsecompile.bench.aot.kernels import analyse_kernels
from sparsecompile.codegen.triton.attention.block_masks import WARPS
from sparsecompile.codegen.triton.attention.flash import FEW, FlashAttention
from sparsecompile.codegen.triton.attention.scan import SOURCE
from sparsecompile.codegen.triton.attention.signature import attention_signature
from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.architecture import architecture
from sparsecompile.codegen.triton.inspection.specialization import Specialization
from sparsecompile.codegen.triton.module import import_module, write_module
from sparsecompile.compiler import Compiler
from sparsecompile.kernels.target import Target
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import default_registry

REGISTRY, FLASH = default_registry(), FlashAttention()
TARGETS = ("sm_80", "sm_90", "gfx942")
DTYPES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
WIDEST = (AttentionSpec(torch.bfloat16, 256, 256), AttentionSpec(torch.float32, 128, 128))
SPECS = tuple(spec for dtype in DTYPES for spec in FLASH.examples(dtype))


def gates() -> list[tuple[AttentionSpec, str]]:
    """Every target with every dtype, heads in turn; caches of int8; then the widest heads."""
    turns = product(DTYPES, TARGETS)
    found = [(FLASH.examples(dtype)[i % 4], arch) for i, (dtype, arch) in enumerate(turns)]
    found += [(FLASH.examples(torch.bfloat16)[4], arch) for arch in TARGETS]
    return found + [(spec, arch) for spec in WIDEST for arch in TARGETS[:2]]


@pytest.mark.parametrize(("spec", "arch"), gates(), ids=str)
def test_default_schedules(spec: AttentionSpec, arch: str) -> None:
    target = Target.parse(arch)
    case = Case(spec, FLASH, FLASH.default(spec, target), target)
    for symbol, kernel in case.specializations(REGISTRY).items():
        found = analyse(kernel, arch)
        check_no_faults(found)
        assert found.dots == (DTYPES[spec.dtype],)
        # Products of float32 are exact, which NVIDIA's matrix units are not.
        exact = spec.dtype == torch.float32
        units = architecture(arch).matrix
        if symbol == FEW:
            assert found.unit in ((None, "mfma") if exact else units)
        else:
            assert found.unit == (None if exact and units[0] != "mfma" else units[0])
        (loop,) = (each for each in found.loops if each.loads)
        assert sum(loop.matrix.values()) > 0 or found.unit is None
        if target.gpu.vendor == "nvidia":
            # Keys and values are on their way while others are multiplied.
            wanted = {load.text.split(" = ")[0] for load in loop.loads if load.is_asynchronous}
            assert wanted, loop.loads


def kernel_of(
    function: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    divisible: Iterable[str] = (),
    warps: int = 4,
) -> Specialization:
    return Specialization(function, types, constants, frozenset(divisible), {"num_warps": warps})


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(("mask", "bias", "split"), [(0, 0, 0), (0, 1, 1), (1, 0, 0)])
def test_what_is_not_given_is_left_out(few: bool, mask: int, bias: int, split: int) -> None:
    spec, target = SPECS[0], Target.parse("sm_90")
    schedule = FLASH.default(spec, target)
    module = import_module(write_module(FLASH.render(spec, schedule, target, REGISTRY)))
    launch = FLASH.launches(spec, schedule)[not few]
    given = attention_signature(spec, launch, mask=bool(mask), bias=bool(bias), split=bool(split))
    types = {name: kind for name, kind in given.types.items() if kind != "constexpr"}
    kernel = kernel_of(getattr(module, launch.function), types, given.constants, given.divisible)
    assert analyse(kernel, "sm_90").faults == ()


SIZES = dict.fromkeys(("heads", "queries", "keys"), "i32")
STRIDES = dict.fromkeys(("batch_stride", "head_stride", "row_stride", "key_stride"), "i32")
INTERVALS = {"low": "*i32", "high": "*i32", "keep": "*i8", "q_ids": "*i64", "kv_ids": "*i64"}


@pytest.mark.parametrize("function", ["scan_tiles", "scan_words"])
@pytest.mark.parametrize(
    ("given", "adds"), [({"mask": "*i8"}, False), ({"mask": "*bf16"}, True), (INTERVALS, False)]
)
def test_masks_are_looked_at(function: str, given: dict[str, str], adds: bool) -> None:
    module = import_module(write_module(SOURCE))
    out = {"kinds": "*i32", "bits": "*i64", "lacking": "*i32"}
    out = out if function == "scan_tiles" else {"bits": "*i64"}
    missing = dict.fromkeys({"mask", *INTERVALS} - set(given))
    types = {**given, **out, **STRIDES, **SIZES}
    kernel = kernel_of(getattr(module, function), types, {**missing, "ADDS": adds}, (), WARPS)
    for arch in TARGETS[1:]:
        assert analyse(kernel, arch).faults == ()


def test_parts_are_merged() -> None:
    spec, target = SPECS[1], Target.parse("sm_90")
    source = FLASH.render(spec, FLASH.default(spec, target), target, REGISTRY)
    function = import_module(write_module(source)).merge_parts
    types = {"parts_sums": "*fp32", "parts_totals": "*fp32", "out": "*fp16"}
    types |= dict.fromkeys(("heads", "queries", "parts", "out_batch", "out_head", "out_row"), "i32")
    assert analyse(kernel_of(function, types, {}), "sm_90").faults == ()


@pytest.mark.parametrize("spec", SPECS[:5], ids=str)
def test_specs_are_read_as_they_are_written(spec: AttentionSpec) -> None:
    assert parse_spec(str(spec), REGISTRY) == spec


def test_cases_of_the_registry() -> None:
    found = registry_cases(REGISTRY, Target.parse("sm_90"), (torch.float16, torch.bfloat16))
    specs = [case.spec for case in found if case.template.name == FLASH.name]
    assert specs == [spec for dtype in tuple(DTYPES)[:2] for spec in FLASH.examples(dtype)]
    formats = (REGISTRY.format("n_m[2:4]"),)
    found = registry_cases(REGISTRY, Target.parse("sm_90"), formats=formats)
    assert not any(case.template.name == FLASH.name for case in found)


def test_cases_of_a_report() -> None:
    q, k = torch.randn(2, 6, 512, 64).half(), torch.randn(2, 2, 700, 64).half()

    def model(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        function = torch.nn.functional.scaled_dot_product_attention
        return function(q, k, k, is_causal=True, enable_gqa=True)

    compiler = Compiler(target="sm_90", tune="off")
    (case,) = report_cases(compiler.explain(model, q, k), compiler.registry)
    assert case.spec == AttentionSpec(torch.float16, 64, 64, 3)
    assert case.sizes == {"batch": 2, "heads": 6, "keys": 700}
    bounds = [b for kernel in analyse_kernels([case], REGISTRY) for b in kernel.bounds]
    assert [bound.rows for bound in bounds] == [1, 16, 64, 256, 1024]
    assert bounds[-1].speedup == pytest.approx(2, rel=0.1)
