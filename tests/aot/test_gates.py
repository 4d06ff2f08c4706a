"""Gates: the default schedule of every template, as the compilers make it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, product
from math import gcd

import pytest
import torch
from spilling import check_no_faults

from sparsecompile.bench.aot.cases import Case
from sparsecompile.codegen.triton.fragment import structure_fragment
from sparsecompile.codegen.triton.inspection.analyse import analyse
from sparsecompile.codegen.triton.inspection.architecture import architecture
from sparsecompile.codegen.triton.inspection.sass import read_cubin
from sparsecompile.codegen.triton.inspection.specialization import compile_for
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import default_registry

REGISTRY = default_registry()
TARGETS = ("sm_80", "sm_90", "gfx942")
DTYPES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
TEMPLATES = tuple(t for t in REGISTRY.all(Template) if isinstance(t, TritonLinear))
WITHOUT_PRODUCTS = ("rows",)
"""Templates that gather what they multiply one by one."""


@dataclass(frozen=True)
class Gate:
    """One function of the default schedule of a case."""

    case: Case
    launch: Launch

    def __str__(self) -> str:
        case = self.case
        return f"{case.template.name}-{case.target.arch}-{self.launch.symbol}-{case.spec}"


def specs_of(template: TritonLinear) -> list[KernelSpec]:
    """Structure x codec that a template serves; dtypes in turn, so that neighbours differ."""
    found: list[KernelSpec] = []
    for structure in REGISTRY.all(Structure):
        for codec in REGISTRY.all(Codec):
            spec = KernelSpec(Format(structure, codec), tuple(DTYPES)[len(found) % len(DTYPES)])
            with suppress(Reject):
                template.supports(spec, Target.parse("sm_90"), REGISTRY)
                found.append(spec)
    return found


def gate(template: TritonLinear, spec: KernelSpec, arch: str, place: int) -> Gate:
    target = Target.parse(arch)
    case = Case(spec, template, template.schedules(spec, target)[0], target)
    return Gate(case, case.launches[place % len(case.launches)])


def gates() -> Iterator[Gate]:
    """Every template with half of targets x functions; formats and dtypes in turn."""
    for template in TEMPLATES:
        specs = specs_of(template)
        functions = len(gate(template, specs[0], "sm_90", 0).case.launches)
        for i, (arch, place) in enumerate(product(TARGETS, range(functions))):
            if (i + i // functions) % 2:
                continue
            # Far apart in the list, and each time another codec and dtype.
            spec = specs[(i * (len(specs) // (functions * len(TARGETS)) + 1)) % len(specs)]
            yield gate(template, spec, arch, place)


def more_gates() -> Iterator[Gate]:
    """Every structure and every codec, a sixth of their pairs at most; all else in turn.

    All of them with everything take hours: `sparsecompile aot --check` with all targets and dtypes.
    """
    codecs = len(REGISTRY.all(Codec))
    # Each structure has its codecs in a row: another one each time.
    step = next(step for step in count(6) if gcd(step, codecs) == 1)
    for template in TEMPLATES:
        for turn, spec in enumerate(specs_of(template)[::step]):
            yield gate(template, spec, TARGETS[(turn + turn // 3) % len(TARGETS)], turn)


def test_the_gates_leave_nothing_out() -> None:
    served = {spec.format for template in TEMPLATES for spec in specs_of(template)}
    formats = (Format(s, c) for s in REGISTRY.all(Structure) for c in REGISTRY.all(Codec))
    assert served == set(formats)
    few, many = tuple(gates()), tuple(more_gates())
    for chosen in (few, many):
        assert {(g.case.template, g.case.target.arch) for g in chosen} == set(
            product(TEMPLATES, TARGETS)
        )
        assert {g.case.spec.dtype for g in chosen} == set(DTYPES)
    assert {g.case.spec.format.structure for g in many} == set(REGISTRY.all(Structure))
    assert {g.case.spec.format.codec for g in many} == set(REGISTRY.all(Codec))


@pytest.mark.parametrize("which", tuple(gates()), ids=str)
def test_default_schedules(which: Gate) -> None:
    check(which)


@pytest.mark.slow
@pytest.mark.parametrize("which", tuple(more_gates()), ids=str)
def test_default_schedules_of_most_formats(which: Gate) -> None:
    check(which)


def check(which: Gate) -> None:
    """No spills, no local memory, the matrix instruction, an index read by as much as there is.

    On AMD, scalar registers may be spilled to lanes of vector registers; nothing is to memory.
    """
    case, launch, target = which.case, which.launch, which.case.target
    found = analyse(case.specializations(REGISTRY)[launch.symbol], target.arch)
    check_no_faults(found)
    assert found.occupancy.blocks > 0
    serves_many = launch.largest_m is None or launch.largest_m >= 16
    if serves_many and case.template.name not in WITHOUT_PRODUCTS:
        # Products of float32 are exact, which NVIDIA's matrix units are not.
        exact = case.spec.dtype == torch.float32
        assert found.dots == (DTYPES[case.spec.dtype],)
        assert found.unit in ((None, "mfma") if exact else architecture(target.arch).matrix)
        products = sum(sum(loop.matrix.values()) for loop in found.loops)
        assert (products > 0) == (found.unit is not None)
    loads = [
        (load, words)
        for loop in found.loops
        for load in loop.loads
        for words in reads_index(which, load.text)
    ]
    assert loads or case.spec.format.structure.family == "dense"
    threads = launch.warps * target.gpu.warp_size
    for load, words in loads:
        of_thread = max(1, launch.block_n * words // threads)
        assert load.bits >= 32 * min(4, words, of_thread), load


def reads_index(which: Gate, text: str) -> Iterator[int]:
    """Of the parts of the layout that a line loads, values and scales left out: words a tile."""
    structure = which.case.spec.format.structure
    sizes = structure_fragment(REGISTRY, structure).sizes(structure)
    for name, size in sizes.items():
        if re.search(rf"tl\.load\({name}\b", text):
            of_tile = re.search(r"tiles \* (\d+)", size)
            yield int(of_tile[1]) // 4 if of_tile else 1


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
