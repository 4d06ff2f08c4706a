"""Kernels to hold the laws of: templates with structures, codecs, dtypes, epilogues and schedules.

All combinations would be thousands of builds. Of these so few are drawn that every pair occurs; a
component that is registered takes part without being named here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import combinations, count, product
from typing import Any, TypeVar

import pytest
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
P = TypeVar("P", Structure, Codec)
Fact = Hashable
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
    template
    for template in default_registry().all(Template)
    if (template.language, template.operator) == ("cpp", KernelSpec.operator)
)
STRUCTURES = default_registry().all(Structure)
CODECS = default_registry().all(Codec)


@dataclass(frozen=True)
class KernelCase:
    """One kernel to build: a template, one of its schedules, and a spec."""

    template: Template
    schedule: Schedule
    spec: KernelSpec

    def __str__(self) -> str:
        return f"{self.template.name} {self.spec} {self.schedule.tag}"


def covering(cases: Iterable[T], facts: Callable[[T], Iterable[Fact]]) -> list[T]:
    """Few of the cases, with every fact that any of them has; first those with most new ones."""
    left = [(frozenset(facts(case)), case) for case in cases]
    # Of as good ones a random one: the first would have the same dtype each time.
    random.Random(0).shuffle(left)
    queue = [(-len(new), place, new, case) for place, (new, case) in enumerate(left)]
    heapify(queue)
    seen, chosen = set[Fact](), list[T]()
    while queue:
        _, place, new, case = heappop(queue)
        new -= seen
        if new and queue and len(new) < -queue[0][0]:
            heappush(queue, (-len(new), place, new, case))
        elif new:
            chosen.append(case)
            seen |= new
    return chosen


def drawn(cases: Sequence[object], quick: int) -> list[Any]:
    """The cases as parameters of a test; those after the first so many are slow."""
    marks = [() if place < quick else (pytest.mark.slow,) for place in range(len(cases))]
    return [
        pytest.param(case, id=str(case), marks=mark)
        for case, mark in zip(cases, marks, strict=True)
    ]


def kind(part: Structure | Codec) -> str:
    """Parts of one kind differ in sizes: `block`, `n_m` but 2:4, `/int4[group]`, `/int4`."""
    if isinstance(part, Structure):
        return str(part) if part == NM(2, 4) else part.family
    # What x is rounded to has names of codecs.
    return "/" + re.sub(r"=\d+", "", str(part))


def stored(codec: Codec) -> str:
    """Codecs that differ in bits or sizes alone are stored alike: `/int[group,minima]`, `/nf`."""
    return re.sub(r"(?<=[a-z])\d+|scales=\w+,?", "", kind(codec))


def one_of_each_kind(parts: Sequence[P]) -> list[P]:
    """The first of the parts of each kind."""
    return list({kind(part): part for part in reversed(parts)}.values())


def facts_of(case: KernelCase) -> Iterator[Fact]:
    """For each template all pairs of kinds, dtypes, activations and layouts; every part of a kind.

    Which sizes of a structure are with which of a codec is left to laws of formats, and to those of
    Triton's kernels; epilogues are with every kind, in not every template.
    """
    template, spec = case.template, case.spec
    structure, codec = spec.format.structure, spec.format.codec
    parts = (kind(structure), stored(codec), spec.dtype, spec.activations)
    layout = template.layout(case.schedule)
    yield from ((template, *pair) for pair in combinations((*parts, layout), 2))
    yield from ((spec.epilogue, part) for part in (template, *parts))
    yield from ((template, structure), (template, codec))


def every_case(target: Target) -> Iterator[KernelCase]:
    """Template x structure x codec x dtype x activations x schedule; epilogues in turn."""
    turn = count()
    for template, *parts, dtype, activations in product(
        TEMPLATES, STRUCTURES, CODECS, DTYPES, ACTIVATIONS
    ):
        spec = KernelSpec(Format(*parts), dtype, (), activations)
        if supports(template, spec, target):
            for schedule in template.schedules(spec, target):
                epilogue = EPILOGUES[next(turn) % len(EPILOGUES)]
                yield KernelCase(template, schedule, replace(spec, epilogue=epilogue))


@cache
def drawn_cases() -> tuple[KernelCase, ...]:
    """Of every case for this machine so few that each fact occurs; a third has most of them."""
    return tuple(covering(every_case(Target.host()), facts_of))


def supports(template: Template, spec: KernelSpec, target: Target) -> bool:
    """Whether a template says that it can serve a spec."""
    try:
        template.supports(spec, target, default_registry())
    except Reject:
        return False
    return True
