"""Every instruction set level up to this machine's: its flags, and kernels built for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from kernel_cases import (
    CODECS,
    DTYPES,
    STRUCTURES,
    TEMPLATES,
    KernelCase,
    covering,
    drawn,
    kind,
    one_of_each_kind,
    supports,
)
from packing import MLP, Packing, close

from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.errors import OptionError
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import ISA_LEVELS, Target
from sparsecompile.kernels.template import Template

HOST = Target.host()
LEVELS = list(ISA_LEVELS)
OWN_LEVELS = LEVELS[: LEVELS.index(HOST.isa) + 1]
# What GCC and clang define for the features of each level.
MACROS = {
    "portable": (),
    "avx2": ("__AVX2__", "__FMA__", "__F16C__"),
    "avx512": ("__AVX512F__", "__AVX512BW__", "__AVX512DQ__", "__AVX512VL__"),
    "avx512_bf16": ("__AVX512BF16__", "__AVX512VNNI__", "__AVX512VBMI__", "__AVX512VBMI2__"),
    "amx": ("__AMX_TILE__", "__AMX_BF16__", "__AMX_INT8__"),
}
on_x86 = pytest.mark.skipif(HOST.arch != "x86_64", reason="instruction sets of x86_64")


def at_level(isa: str) -> Target:
    return Target(HOST.device, HOST.arch, isa)


@on_x86
@pytest.mark.parametrize("isa", LEVELS)
def test_flags_turn_on_the_features_of_a_level_and_no_others(
    isa: str, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The host's own level gets -march=native instead.
    monkeypatch.setattr(Target, "host", lambda: at_level("none of them"))
    compiler = find_compiler()
    flags = [f for f in compiler.flags(at_level(isa)) if f.startswith("-m")]
    words = [*compiler.command, *flags, "-dM", "-E", "-x", "c++", "/dev/null"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    defined = {line.split()[1] for line in done.stdout.splitlines()}
    included = LEVELS[: LEVELS.index(isa) + 1]
    for level, macros in MACROS.items():
        assert set(macros) & defined == (set(macros) if level in included else set()), level
    assert ("-mprefer-vector-width=512" in flags) == ("avx512" in included)


def test_the_host_gets_all_of_its_own_instructions() -> None:
    compiler = Compiler(("c++",), "c++ 1", ("-fopenmp",), ("-march=native",), ())
    assert "-march=native" in compiler.flags(HOST)
    other = at_level(next(level for level in LEVELS if level != HOST.isa))
    assert "-march=native" not in compiler.flags(other)


@dataclass(frozen=True)
class LevelCase:
    """A kernel for a level below the host's: all other tests build for that."""

    isa: str
    template: Template
    spec: KernelSpec

    def __str__(self) -> str:
        return f"{self.template.name} {self.isa} {self.spec}"

    def facts(self) -> Iterator[tuple[str, object]]:
        """Of each level every template, dtype, activations and kind of parts; no pairs of these."""
        structure, codec = self.spec.format.structure, self.spec.format.codec
        parts = (self.spec.dtype, self.spec.activations, kind(structure), kind(codec))
        yield from ((self.isa, part) for part in (self.template, *parts))


def level_cases() -> list[LevelCase]:
    every = (
        LevelCase(isa, template, KernelSpec(Format(*parts), dtype, (), activations))
        for isa, template, *parts, dtype, activations in product(
            OWN_LEVELS[:-1],
            TEMPLATES,
            one_of_each_kind(STRUCTURES),
            one_of_each_kind(CODECS),
            DTYPES,
            ACTIVATIONS,
        )
    )
    served = (case for case in every if supports(case.template, case.spec, at_level(case.isa)))
    return covering(served, LevelCase.facts)


CASES = level_cases()


@on_x86
def test_the_cases_leave_nothing_out() -> None:
    found = {fact for case in CASES for fact in case.facts()}
    parts = (*DTYPES, *ACTIVATIONS, *map(kind, STRUCTURES), *map(kind, CODECS))
    assert set(product(OWN_LEVELS[:-1], parts)) < found
    plain = next(codec for codec in CODECS if codec.family == "float")
    for template, isa in product(TEMPLATES, OWN_LEVELS[:-1]):
        simple = KernelSpec(Format(STRUCTURES[0], plain), DTYPES[0])
        assert ((isa, template) in found) == supports(template, simple, at_level(isa))


@on_x86
@pytest.mark.parametrize("level_case", drawn(CASES, 4))
def test_templates_at_a_level(
    level_case: LevelCase,
    build_case: Callable[..., Kernel],
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
) -> None:
    template, spec, target = level_case.template, level_case.spec, at_level(level_case.isa)
    # Schedules differ in their layouts, and these in no instruction.
    case = KernelCase(template, template.schedules(spec, target)[0], spec)
    kernel = build_case(case, target=target)
    for n, k in ((80, 192), (37, 101), (5, 7), (1, 1)):
        packed = pack(kernel, n, k)
        like = torch.empty(0, dtype=packed.dtype)
        dense = torch.ops.sparsecompile.unpack(kernel.prepack(packed), like, n, k, kernel.key)
        assert torch.equal(dense.view(torch.uint8), packed.unpack().view(torch.uint8))
        for m in (1, 2, 4, 8, 9, 33):
            check_linear(kernel, packed, (m,), m % 2 == 1)
    for symbol, _ in kernel.sources[0].kernels:
        alone = build_case(case, symbol, target)
        check_linear(alone, pack(alone, 37, 101), (3,), True)


@on_x86
@pytest.mark.parametrize("isa", [*OWN_LEVELS[-1:], *OWN_LEVELS[2:3], "portable"])
def test_the_target_that_an_option_names(isa: str, shared_cache: Path) -> None:
    model = MLP().requires_grad_(False)
    backend = Packing(target=f"cpu[{isa}]", formats=["n_m[2:4]"])
    assert backend.compiler.target == at_level(isa)
    x = torch.randn(5, 32)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert len(backend.packed) == 2
    assert str(backend.compiler.report).count(f"cpu {HOST.arch} {isa}") == 1


def test_levels_that_this_machine_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "host", lambda: Target("cpu", "x86_64", "avx2"))
    known = r"'cpu\[avx512\]' on this machine; .*'cpu\[avx2\]', 'sm_75'"
    with pytest.raises(OptionError, match=known):
        Packing(target="cpu[avx512]")
