"""Analyse: compile a kernel for an architecture and look at the machine code."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.sources import sources_digest
from sparsecompile.codegen.triton.inspection.amdgcn import read_amdgcn
from sparsecompile.codegen.triton.inspection.analysis import Analysis, Loads, LoopAnalysis
from sparsecompile.codegen.triton.inspection.architecture import Architecture, architecture
from sparsecompile.codegen.triton.inspection.listing import find_loops
from sparsecompile.codegen.triton.inspection.machine_code import MachineCode
from sparsecompile.codegen.triton.inspection.occupancy import occupancy
from sparsecompile.codegen.triton.inspection.sass import read_cubin
from sparsecompile.codegen.triton.inspection.specialization import Specialization, compile_for
from sparsecompile.codegen.triton.version import triton_version
from sparsecompile.kernels.spec import digest

if TYPE_CHECKING:
    from triton.compiler import CompiledKernel

_DOT = re.compile(r"tt\.dot(?:_scaled)?\b.*?:\s*tensor<[^>]*x(?P<type>\w+)>\s*\*")


def analyse(what: Specialization, target: str) -> Analysis:
    """Compile a kernel for a target with no GPU, and look at the machine code.

    What was found is kept in the cache folder, and of several processes one compiles.

    Args:
        what: the kernel.
        target: `sm_80`, `sm_86`, `sm_89`, `sm_90`, `sm_100` or `gfx942`.

    Raises:
        OptionError: nothing is known of the target.
        BuildError: Triton is not installed or cannot compile it.
        CacheError: the cache folder cannot be used.
    """
    where = architecture(target)
    key = digest(what.identity, what.file, target, triton_version(), sources_digest())
    folder, entry = Cache(), f"aot-{key}"
    name = f"{entry}.json"
    known = folder.read(name)
    if known is None:
        with folder.lock(entry):
            known = folder.read(name)
            if known is None:
                found = _look_at(compile_for(what, where), what, where)
                known = json.dumps(asdict(found)).encode()
                folder.write(name, known)
    return Analysis.of(json.loads(known))


def _look_at(compiled: CompiledKernel, what: Specialization, where: Architecture) -> Analysis:
    code = _machine_code(compiled, what.file)
    texts = cache(what.line)
    loops, outside = [], set(range(len(code.listing)))
    for loop in find_loops(code.listing):
        outside.difference_update(loop.places)
        matrix, loads = _matrix(code, loop.places), _loads(code, loop.places, texts)
        if matrix or loads:
            loops.append(LoopAnalysis(loop.depth, len(loop.places), matrix, loads))
    everything = range(len(code.listing))
    units = [code.matrix(code.listing[place]) for place in everything]
    meta = compiled.metadata
    return Analysis(
        kernel=what.name,
        target=where.name,
        triton=triton_version(),
        options=" ".join(f"{name}={value}" for name, value in sorted(what.options.items())),
        registers=code.registers,
        stack=code.stack,
        spills=code.spills,
        shared=meta.shared,
        warps=meta.num_warps,
        instructions=len(code.listing),
        unit=next((unit for unit in where.matrix if unit in units), None),
        matrix=_matrix(code, everything),
        dots=tuple(sorted({found["type"] for found in _DOT.finditer(compiled.asm["ttir"])})),
        loops=tuple(loops),
        loads=_loads(code, sorted(outside), texts),
        occupancy=occupancy(where, code.registers, meta.shared, meta.num_warps),
    )


def _machine_code(compiled: CompiledKernel, file: str) -> MachineCode:
    if "cubin" in compiled.asm:
        return read_cubin(compiled.asm["cubin"], compiled.asm["ptx"], file)
    return read_amdgcn(compiled.asm["amdgcn"], file)


def _matrix(code: MachineCode, places: Iterable[int]) -> dict[str, int]:
    return dict(Counter(i.name for p in places if code.matrix(i := code.listing[p]) is not None))


def _loads(
    code: MachineCode, places: Iterable[int], texts: Callable[[int], str]
) -> tuple[Loads, ...]:
    found = Counter(load for p in places if (load := code.load(code.listing[p])) is not None)
    ordered = sorted(found.items(), key=lambda item: (item[0].line, -item[0].bits))
    return tuple(Loads(x.line, texts(x.line), x.bits, x.how, n) for x, n in ordered)
