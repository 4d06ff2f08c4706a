"""The choice by shape and capability, where nothing is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from linear_law import sparse_weight
from triton_cases import build, template_of

from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.problem import ROWS, DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry


def ranges(
    name: str,
    arch: str,
    *,
    dense: DenseUse = DenseUse.ANYWHERE,
    rows: tuple[int, ...] = ROWS,
) -> list[Range]:
    registry, target = default_registry(), Target.parse(arch)
    spec = KernelSpec(registry.format(name), torch.float16)
    packed = spec.format.pack(sparse_weight(spec.format.structure, 1024, 2048, torch.float16))
    problem = Problem(spec, packed.shape, rows, len(rows) > 1, dense, "off", 0.5)
    lowering = TritonCodegen().lower({problem: lambda: Contents(packed)}, target, registry)[problem]
    assert lowering.trials == ()
    assert "not measured; rooflines of" in lowering.reason
    return list(lowering.kernel.ranges) if lowering.kernel is not None else []


def test_n_m_is_packed_where_memory_is_what_takes_time() -> None:
    found = ranges("n_m[4:8]", "sm_90")
    assert [r.symbol for r in found if not r.dense] == ["row", "few", "some", "many"][
        : len(found) - 1
    ]
    assert found[-1].dense
    assert found[-1].largest_m is None
    # A GPU with less arithmetic for its bandwidth turns to the dense linear earlier.
    ends = {
        arch: [r.largest_m for r in ranges("n_m[4:8]", arch) if not r.dense][-1]
        for arch in ("sm_80", "sm_90")
    }
    assert ends["sm_80"] < ends["sm_90"]


def test_without_the_dense_weight_there_is_a_function_for_every_m() -> None:
    found = ranges("dense/int4[group=128]", "sm_80", dense=DenseUse.NEVER)
    assert not any(r.dense for r in found)
    assert [r.symbol for r in found] == ["row", "few", "some", "many"]
    assert [r.largest_m for r in found] == [1, 16, 128, None]


def test_one_m_has_one_function() -> None:
    for m, symbol in ((1, "row"), (7, "few"), (100, "some")):
        (part,) = ranges("n_m[2:4]", "sm_90", rows=(m,))
        assert (part.symbol, part.largest_m, part.dense) == (symbol, None, False)
    assert ranges("n_m[2:4]", "sm_90", rows=(4096,)) == []


def test_a_copy_serves_all_rows_or_none() -> None:
    found = ranges("n_m[2:4]", "sm_90", dense=DenseUse.ALONE)
    assert not any(r.dense for r in found)
    assert found[-1].largest_m is None
    assert ranges("n_m[2:4]", "sm_90", dense=DenseUse.ALONE, rows=(4096,)) == []


def test_csr_serves_few_rows_only() -> None:
    found = ranges("csr", "sm_90")
    assert not found or found[-1].dense


def test_blocks_save_arithmetic_too() -> None:
    # Half of the blocks are zero: half of the work at every m.
    assert not any(r.dense for r in ranges("block[32x32]", "sm_90"))


def test_the_cheaper_candidate_is_chosen() -> None:
    registry, target = default_registry(), Target.parse("sm_90")
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float16)
    packed = spec.format.pack(sparse_weight(spec.format.structure, 64, 256, torch.float16))
    template, codegen = template_of(spec), TritonCodegen()
    assert template is not None
    schedule = template.schedules(spec, target)[0]
    variant = codegen.variant(spec, template, schedule, target, registry)

    class Worse(type(template)):  # type: ignore[misc]
        name = "worse"

        def cost(self, *args: object) -> object:
            cost = super().cost(*args)
            return replace(cost, nbytes=3 * cost.nbytes)

        def layout(self, schedule: object) -> str:
            return "worse"

    worse = replace(variant, template=Worse(), source=replace(variant.source, name="worse"))
    problem = Problem(spec, packed.shape, (1,), False, DenseUse.ANYWHERE, "off", 0.5)
    bench = TritonWorkbench(target, registry)
    (part,) = bench.guess(problem, [worse, variant], Contents(packed)).ranges
    assert (part.source, part.dense) == (variant.source_name, False)
    (part,) = bench.guess(problem, [worse], Contents(packed)).ranges
    assert part.dense


def test_k_is_split_until_there_are_enough_programs() -> None:
    launch = Launch("few", "linear", 16, 64, 16, 264, 4, 3)
    assert launch.splits(n=4096, tiles=32) == 4
    assert launch.splits(n=64, tiles=32) == 32
    assert launch.splits(n=64, tiles=3) == 2
    assert launch.splits(n=64 * 1024, tiles=32) == 1
    assert replace(launch, programs=0).splits(n=64, tiles=32) == 1


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942"])
def test_modules_say_how_they_are_started(arch: str) -> None:
    kernel = build(
        KernelSpec(default_registry().format("n_m[2:4]"), torch.float16), Target.parse(arch)
    )
    for launch in kernel.launches:
        assert str(launch) in kernel.sources[0].text
