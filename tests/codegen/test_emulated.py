"""Kernels for AVX-512 and AMX on CPUs with AVX2: `emulated/avx512.h` has their instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
import torch
from kernel_cases import (
    CODECS,
    DTYPES,
    STRUCTURES,
    KernelCase,
    covering,
    drawn,
    kind,
    one_of_each_kind,
    supports,
)

from sparsecompile.codegen.cpp.compiler import Compiler
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.strips import StripsLinear
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target, isa_at_least
from sparsecompile.registry import Registry

HEADER = Path(__file__).parent / "emulated" / "avx512.h"
LEVELS = ("avx512", "avx512_bf16", "amx")
SHAPES = ((37, 101), (80, 288))

pytestmark = pytest.mark.skipif(
    Target.host().arch != "x86_64" or not isa_at_least(Target.host().isa, "avx2"),
    reason="the emulation needs AVX2",
)


def at_level(isa: str) -> Target:
    return Target("cpu", "x86_64", isa)


@dataclass(frozen=True)
class Emulated:
    """A kernel of strips for a level, and the loops that it is made of."""

    isa: str
    loops: tuple[str, ...]
    case: KernelCase

    def __str__(self) -> str:
        return f"{self.isa} {self.case}"

    def facts(self) -> Iterator[tuple[str, object]]:
        """Of each level every set of loops, layout and part; sets of loops with one of these."""
        spec, layout = self.case.spec, self.case.template.layout(self.case.schedule)
        kinds = (kind(spec.format.structure), kind(spec.format.codec))
        parts = (*kinds, spec.dtype, spec.activations, layout, self.loops)
        yield from ((self.isa, part) for part in parts)


def every_case() -> Iterator[Emulated]:
    """At levels that this machine lacks: its own are tested as they are, with other templates."""
    template, host = StripsLinear(), Target.host().isa
    kinds = product(one_of_each_kind(STRUCTURES), one_of_each_kind(CODECS))
    missing = [isa for isa in LEVELS if not isa_at_least(host, isa)]
    for isa, parts, dtype, activations in product(missing, kinds, DTYPES, ACTIVATIONS):
        spec = KernelSpec(Format(*parts), dtype, ("silu",), activations)
        if supports(template, spec, at_level(isa)):
            for schedule in template.schedules(spec, at_level(isa)):
                loops = template.files(spec, schedule)
                yield Emulated(isa, loops, KernelCase(template, schedule, spec))


CASES = covering(every_case(), Emulated.facts)


def test_the_cases_leave_nothing_out() -> None:
    found = {fact for case in CASES for fact in case.facts()}
    assert {(each.isa, each.loops) for each in every_case()} <= found
    parts = (*DTYPES, *ACTIVATIONS, *map(kind, STRUCTURES), *map(kind, CODECS))
    assert set(product({case.isa for case in CASES}, parts)) <= found


def emulate(monkeypatch: pytest.MonkeyPatch, levels: tuple[str, ...], *header: str) -> None:
    """What is compiled for these levels is compiled for AVX2, behind a header of instructions."""
    flags = Compiler.flags

    def emulating(self: Compiler, target: Target, standard: str = "c++17") -> tuple[str, ...]:
        own = flags(self, target, standard)
        if target.isa not in levels or (target == Target.host() and target.isa != "avx2"):
            return own
        level = f"-DEMULATED_LEVEL={levels.index(target.isa)}"
        by_avx2 = flags(self, replace(target, isa="avx2"), standard)
        # What is optimised takes ten times as long, almost all of it to build.
        return (*by_avx2, "-O0", "-Wno-psabi", level, "-include", *header)

    monkeypatch.setattr(Compiler, "flags", emulating)


def check_case(
    case: KernelCase,
    isa: str,
    build_case: Callable[..., Kernel],
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
) -> None:
    kernel = build_case(case, target=at_level(isa))
    for n, k in SHAPES:
        packed = pack(kernel, n, k)
        like = torch.empty(0, dtype=packed.dtype)
        dense = torch.ops.sparsecompile.unpack(kernel.prepack(packed), like, n, k, kernel.key)
        assert torch.equal(dense.view(torch.uint8), packed.unpack().view(torch.uint8))
        for m in (1, 2, 4, 7, 9, 40):
            check_linear(kernel, packed, (m,), m % 2 == 1)


@pytest.mark.parametrize("emulated", drawn(CASES, 4))
def test_strips_at_levels_that_may_be_missing_here(
    emulated: Emulated,
    build_case: Callable[..., Kernel],
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulate(monkeypatch, LEVELS, str(HEADER))
    check_case(emulated.case, emulated.isa, build_case, pack, check_linear)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense/int8", "n_m[2:4]/int4[group=64]"])
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_words_by_avx_vnni(
    name: str,
    activations: str,
    registry: Registry,
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    shared_cache: Path,
) -> None:
    """Kernels of a Codegen of its own: others have built them without the header."""
    emulate(monkeypatch, ("avx2",), str(HEADER.with_name("avxvnni.h")))
    template = StripsLinear()
    spec = KernelSpec(registry.format(name), torch.bfloat16, (), activations)
    schedule = template.schedules(spec, at_level("avx2"))[0]
    codegen = CppCodegen()

    def build(case: KernelCase, target: Target) -> Kernel:
        return codegen.build(case.spec, template, case.schedule, target, registry)

    case = KernelCase(template, schedule, spec)
    assert (
        "_mm256_dpwssd_avx_epi32"
        in template.render(spec, schedule, at_level("avx2"), registry).text
    )
    check_case(case, "avx2", build, pack, check_linear)
