"""Every template of linears with structures, codecs, dtypes, epilogues and schedules in turn.

All combinations would be thousands of builds. A rotation has every structure once for each
template, and what else a kernel depends on takes turns; a component that is registered takes part
without being named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch

from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import default_registry
from sparsecompile.structures.n_m import NM

T = TypeVar("T")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EPILOGUES: tuple[tuple[str, ...], ...] = (
    (),
    ("relu",),
    ("gelu", "mul"),
    ("add",),
    ("silu", "mul"),
    ("gelu_tanh",),
    ("sigmoid", "add", "mul"),
    ("tanh",),
)
TEMPLATES = tuple(
    t
    for t in default_registry().all(Template)
    if (t.language, t.operator) == ("cpp", KernelSpec.operator)
)
"""Of linears."""
STRUCTURES = default_registry().all(Structure)
LOSSLESS = tuple(c for c in default_registry().all(Codec) if c.lossless)
LOSSY = tuple(c for c in default_registry().all(Codec) if not c.lossless)


@dataclass(frozen=True)
class KernelCase:
    """One kernel to build: a template, one of its schedules, and a spec."""

    template: Template
    schedule: Schedule
    spec: KernelSpec

    def __str__(self) -> str:
        return f"{self.template.name} {self.spec} {self.schedule.tag}"


def cases_in_turn(rotation: int, target: Target | None = None) -> list[KernelCase]:
    """Every template x structure that it supports, once; half of them with a lossy codec.

    A layout that none of these has comes last.
    """
    where = target or Target.host()
    cases = (
        _case(template, structure, i, rotation, where)
        for template in TEMPLATES
        for i, structure in enumerate(STRUCTURES)
    )
    found = [case for case in cases if case is not None]
    layouts = {case.template.layout(case.schedule) for case in found}
    for case in tuple(found):
        for schedule in case.template.schedules(case.spec, where):
            layout = case.template.layout(schedule)
            if layout not in layouts:
                layouts.add(layout)
                found.append(KernelCase(case.template, schedule, case.spec))
    return found


def two_of_four_cases() -> list[KernelCase]:
    """What is guessed to be the best for 2:4, with every codec and every rounding of x."""
    where, found = Target.host(), []
    for template, codec, activations in product(TEMPLATES, LOSSLESS + LOSSY, ACTIVATIONS):
        fmt = Format(NM(2, 4), codec)
        spec = KernelSpec(fmt, torch.bfloat16, EPILOGUES[len(found) % len(EPILOGUES)], activations)
        if supports(template, spec, where):
            found.append(KernelCase(template, template.schedules(spec, where)[0], spec))
    return found


def _case(
    template: Template, structure: Structure, i: int, rotation: int, target: Target
) -> KernelCase | None:
    turn = i // 2
    lossy, lossless = _from(LOSSY, turn), _from(LOSSLESS, turn)
    is_lossy = (i + rotation) % 2 == 1
    codecs = (*lossy, *lossless) if is_lossy else (*lossless, *lossy)
    choices = product(
        codecs,
        _from(DTYPES, turn + rotation),
        _from(tuple(ACTIVATIONS), turn // 2 if is_lossy else 0),
        (*_from(EPILOGUES, 5 * turn + i % 2 + 3 * rotation)[:1], ()),
    )
    for codec, dtype, activations, epilogue in choices:
        spec = KernelSpec(Format(structure, codec), dtype, epilogue, activations)
        if supports(template, spec, target):
            schedules = template.schedules(spec, target)
            # Not in step with the dtypes, of which there are as many as of some schedules.
            at = turn + turn // len(DTYPES) + rotation
            return KernelCase(template, schedules[at % len(schedules)], spec)
    return None


def supports(template: Template, spec: KernelSpec, target: Target) -> bool:
    """Whether a template says that it can serve a spec."""
    try:
        template.supports(spec, target, default_registry())
    except Reject:
        return False
    return True


def _from(items: tuple[T, ...], start: int) -> tuple[T, ...]:
    """All items, beginning with the one at `start`."""
    first = start % len(items)
    return (*items[first:], *items[:first])
