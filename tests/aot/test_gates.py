"""Gates: the default schedule of every template, as the compilers make it."""

from __future__ import annotations

import re

import pytest
import torch

from sparsecompile.codegen.triton.aot.analyse import analyse
from sparsecompile.codegen.triton.aot.architecture import architecture
from sparsecompile.codegen.triton.aot.cases import Case
from sparsecompile.codegen.triton.aot.sass import read_cubin
from sparsecompile.codegen.triton.aot.specialization import compile_for
from sparsecompile.codegen.triton.fragment import codec_fragment, structure_fragment
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.errors import Reject
from sparsecompile.packed import Structure
from sparsecompile.registry import default_registry
from sparsecompile.spec import KernelSpec, Target
from sparsecompile.template import Template

REGISTRY = default_registry()
TARGETS = ("sm_80", "sm_90", "gfx942")
TEMPLATES = tuple(t for t in REGISTRY.all(Template) if isinstance(t, TritonTemplate))
WITHOUT_PRODUCTS = ("rows",)
"""Templates that gather what they multiply one by one."""


def case_of(template: TritonTemplate, target: str) -> Case:
    """The template's default schedule, for the first structure with an index, in float16."""
    where = Target.parse(target)
    for structure in REGISTRY.all(Structure):
        if structure.family == "dense":
            continue
        spec = KernelSpec(REGISTRY.format(structure.name), torch.float16)
        try:
            template.supports(spec, where, REGISTRY)
        except Reject:
            continue
        return Case(spec, template, template.schedules(spec, where)[0], where)
    raise AssertionError(f"{template.name} takes no structure on {target}")


CASES = [
    pytest.param(template, target, i, id=f"{template.name}-{target}-{launch.symbol}")
    for template in TEMPLATES
    for target in TARGETS
    for i, launch in enumerate(case_of(template, target).launches)
]


@pytest.mark.slow
@pytest.mark.parametrize(("template", "target", "place"), CASES)
def test_default_schedules(template: TritonTemplate, target: str, place: int) -> None:
    case = case_of(template, target)
    launch = case.launches[place]
    found = analyse(case.specializations(REGISTRY)[launch.symbol], target)
    assert found.faults == ()
    assert found.spills == found.stack == 0
    assert found.occupancy.blocks > 0
    serves_many = launch.largest_m is None or launch.largest_m >= 16
    if serves_many and template.name not in WITHOUT_PRODUCTS:
        assert found.dots == ("f16",)
        assert found.unit in architecture(target).matrix
        assert sum(sum(loop.matrix.values()) for loop in found.loops) > 0
    metadata = [load for loop in found.loops for load in loop.loads if reads_index(case, load.text)]
    assert all(load.bits >= 32 for load in metadata)
    assert metadata, "no load of the index was found in a loop"


def reads_index(case: Case, text: str) -> bool:
    """Whether a line loads a part of the layout other than values and scales."""
    structure = case.spec.format.structure
    codec = case.spec.format.codec
    values = codec_fragment(REGISTRY, codec).values(codec, case.spec)
    names = structure_fragment(REGISTRY, structure).sizes(structure, values)
    return any(re.search(rf"tl\.load\({name}\b", text) for name in names)


@pytest.fixture(scope="module")
def two_of_four() -> Case:
    (template,) = (t for t in TEMPLATES if t.name == "tiles")
    spec, target = KernelSpec(REGISTRY.format("n_m[2:4]"), torch.float16), Target.parse("sm_90")
    return Case(spec, template, template.schedules(spec, target)[0], target)


def test_two_of_four_for_few_rows_on_sm_90(two_of_four: Case) -> None:
    """At 16 x 64 x 128, W goes from registers to wgmma."""
    (launch,) = (x for x in two_of_four.launches if x.largest_m == 16)
    assert (launch.block_m, launch.block_n) == (16, 64)
    kernel = two_of_four.specializations(REGISTRY)[launch.symbol]
    found = analyse(kernel, "sm_90")
    assert found.faults == ()
    assert found.unit == "wgmma"
    assert found.registers <= 128
    assert found.matrix == {"HGMMA.64x16x16.F32": 8}
    asm = compile_for(kernel, architecture("sm_90")).asm
    code = read_cubin(asm["cubin"], asm["ptx"], kernel.file)
    first = [i.operands.split(", ")[1] for i in code.listing if code.matrix(i)]
    assert len(first) == 8
    assert all(operand.startswith("R") for operand in first)


@pytest.mark.parametrize(
    ("target", "name"), [("sm_80", "IMMA"), ("sm_90", "IGMMA"), ("gfx942", "v_mfma_i32")]
)
def test_integers_are_multiplied_as_such(target: str, name: str) -> None:
    (template,) = (t for t in TEMPLATES if t.name == "tiles")
    spec = KernelSpec(REGISTRY.format("dense/int8"), torch.bfloat16, (), "int8")
    where = Target.parse(target)
    case = Case(spec, template, template.schedules(spec, where)[0], where)
    found = analyse(case.specializations(REGISTRY)["few"], target)
    assert found.faults == ()
    assert found.dots == ("i8",)
    assert found.matrix
    assert all(instruction.startswith(name) for instruction in found.matrix)
