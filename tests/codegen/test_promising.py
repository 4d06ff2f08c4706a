"""What the cost model leaves for measuring."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lists import ListsLinear
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.codegen.tuning.promising import promising
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.registry import default_registry

# Bandwidth, then float32, bfloat16 and int8 rates: as of a server with two cores.
MACHINE = Machine("", 2, 2e10, 1e10, 2**21, 2**25, 2.6e11, 1.2e12, 2.5e12, "", "", "")
TEMPLATES = (StripsLinear(), ListsLinear(), GenericLinear())


def variants_of(template: Template, spec: KernelSpec, isa: str = "") -> list[Variant]:
    target = replace(Target.host(), isa=isa or Target.host().isa)
    return [
        Variant(template, schedule, Source(template.name, "cpp", "", ()))
        for schedule in template.schedules(spec, target)
    ]


def measured(
    text: str,
    dtype: torch.dtype,
    sparsity: float | None = None,
    rows: tuple[int, ...] = (),
    isa: str = "",
) -> list[Variant]:
    """What would be measured."""
    format = default_registry().format(text)
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).to(dtype)
    if format.structure.family != "dense":
        weight = weight * format.structure.prune(weight, sparsity)
    spec = KernelSpec(format, dtype)
    variants = [v for template in TEMPLATES for v in variants_of(template, spec, isa)]
    problem = Problem(spec, (512, 512), rows, False, DenseUse.NEVER, "fast", 1.0)
    found = promising(problem, variants, Contents(format.pack(weight)), MACHINE.limits)
    assert len(found) == len(set(found))
    return found


def names(variants: list[Variant]) -> set[str]:
    return {variant.template.name for variant in variants}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("text", ["n_m[2:4]/float", "dense/int8", "dense/int4[group=32]"])
def test_the_generic_template_gives_way_where_it_does_no_less(
    text: str, dtype: torch.dtype
) -> None:
    assert names(measured(text, dtype)) == {"strips"}


def test_lists_are_measured_where_they_skip_most_of_the_work() -> None:
    assert names(measured("bitmap/float", torch.float32, 0.5)) == {"strips"}
    assert names(measured("bitmap/float", torch.float32, 0.9)) == {"strips", "lists"}
    assert names(measured("bitmap/float", torch.bfloat16, 0.8)) == {"strips"}
    assert names(measured("bitmap/float", torch.bfloat16, 0.95)) == {"strips", "lists"}


@pytest.mark.parametrize("isa", ["avx2", "avx512_bf16"])
def test_rows_of_a_graph_decide_which_functions_of_a_layout_are_measured(isa: str) -> None:
    few = measured("bitmap/float", torch.float32, 0.5, isa=isa)
    some = measured("bitmap/float", torch.float32, 0.5, rows=(16,), isa=isa)
    # Where lists were timed they beat expanding unless there are 9 to 24 rows.
    assert [v.schedule["lists"] for v in few] == ([1] if isa == "avx2" else [0, 1])
    assert sorted(v.schedule["lists"] for v in some) == [0, 1]
    assert {v.layout for v in few} == {v.layout for v in some}


def test_a_template_that_is_alone_is_measured() -> None:
    format = default_registry().format("n_m[2:4]/float")
    weight = torch.randn(16, 64)
    contents = Contents(format.pack(weight * format.structure.prune(weight)))
    spec, generic = KernelSpec(format, torch.float32), GenericLinear()
    variants = variants_of(generic, spec)
    problem = Problem(spec, (16, 64), (), False, DenseUse.NEVER, "fast", 1.0)
    assert promising(problem, variants, contents, MACHINE.limits) == variants
