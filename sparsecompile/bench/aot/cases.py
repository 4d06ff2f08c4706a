"""Case: a kernel to look at ahead of time; those of a registry, those of a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.inspection.specialization import Specialization, specialize
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.template import TritonTemplate
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec, Schedule, Spec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.formats.codec import Codec
    from sparsecompile.report.model import Report

ZEROS = 0.5


@dataclass(frozen=True)
class Case:
    """A template and schedule for a spec, on a target.

    Attributes:
        spec: what it computes.
        template: how.
        schedule: of the template.
        target: a GPU.
        shape: sizes that its cost is worked out for, such as `(n, k)` of the weight; those of
            `template.usual` by default.
        zeros: share of zeros in that weight, where its structure leaves it open, or of the places
            that a mask drops.
    """

    spec: Spec
    template: TritonTemplate[Any]
    schedule: Schedule
    target: Target
    shape: tuple[int, ...] = ()
    zeros: float = ZEROS

    @property
    def sizes(self) -> Mapping[str, int]:
        """By name."""
        usual = self.template.usual
        return dict(zip(usual, self.shape or usual.values(), strict=True))

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Its functions, by rising m."""
        return self.template.launches(self.spec, self.schedule)

    def specializations(self, registry: Registry) -> dict[str, Specialization]:
        """What each launch compiles, by symbol, for aligned sizes and split as for `shape`.

        Raises:
            BuildError: there is no Triton.
            CacheError: the cache folder cannot be used.
        """
        return specialize(
            self.spec, self.template, self.schedule, self.target, registry, self.shape
        )


def registry_cases(
    registry: Registry,
    target: Target,
    dtypes: Iterable[torch.dtype] = (torch.float16,),
    formats: Iterable[Format] | None = None,
    *,
    search: bool = False,
) -> Iterator[Case]:
    """Every Triton template for every format and dtype that it supports, its default schedule.

    Args:
        registry: where the templates are.
        target: a GPU.
        dtypes: of the activations.
        formats: of the weights; by default all that the registry can make, and what has none.
        search: all schedules that a full search would measure.
    """
    chosen = tuple(formats) if formats is not None else tuple(_formats(registry))
    weights = tuple(KernelSpec(found, dtype) for found in chosen for dtype in dtypes)
    for template in registry.all(Template):
        if not isinstance(template, TritonTemplate):
            continue
        others = () if formats is not None else map(template.examples, dtypes)
        is_linear = template.operator == KernelSpec.operator
        for spec in weights if is_linear else chain.from_iterable(others):
            try:
                template.supports(spec, target, registry)
            except Reject:
                continue
            listed = template.search if search else template.schedules
            for schedule in listed(spec, target):
                yield Case(spec, template, schedule, target)


def _formats(registry: Registry) -> Iterator[Format]:
    from sparsecompile.formats.codec import Codec

    codecs: tuple[Codec, ...] = registry.all(Codec)
    for structure in registry.all(Structure):
        yield from (Format(structure, codec) for codec in codecs)


def report_cases(report: Report, registry: Registry) -> Iterator[Case]:
    """The Triton kernels of a report, each once a shape.

    Args:
        report: such as `sparsecompile.explain(model, x, target="sm_90")`.
        registry: that it was made with.
    """
    seen: set[Case] = set()
    for node in report.nodes:
        chosen = node.kernel
        if chosen is None:
            continue
        named = (t for t in registry.all(Template) if t.name == chosen.template)
        template = next(named, None)
        # Kernels for CPUs have nothing to look at here, nor have library calls.
        if not isinstance(template, TritonTemplate):
            continue
        target = Target.parse(report.target.split()[-1])
        size = re.search(r"(?<= )\d+(x\d+)+(?= |$)", node.problem)
        shape = tuple(map(int, size[0].split("x"))) if size else node.shape or ()
        schedule = _schedule(chosen.schedule)
        zeros = ZEROS if node.zeros is None else round(node.zeros, 2)
        case = Case(parse_spec(chosen.spec, registry), template, schedule, target, shape, zeros)
        if case not in seen:
            seen.add(case)
            yield case


def weight_like(spec: KernelSpec, shape: tuple[int, ...], zeros: float) -> Tensor:
    """A random weight `(n, k)` with these zeros, or with those that its structure has to have."""
    structure = spec.format.structure
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(spec.dtype)
    for share in (zeros, None):
        with suppress(ValueError):
            return weight * structure.prune(weight, share)
    return weight


def parse_spec(text: str, registry: Registry) -> Spec:
    """The inverse of `str` of a linear's or an attention's spec.

    Raises:
        RegistrationError: no such structure or codec.
    """
    operator, name, dtype, *rest = text.split()
    if operator == AttentionSpec.operator:
        sizes = dict(word.split("=") for word in (dtype, *rest) if "=" in word)
        d, groups = int(sizes["d"]), int(sizes.get("groups", 1))
        value_dim, has_cap = int(sizes.get("dv", d)), "softcap" in rest
        stored = getattr(torch, sizes["kv"]) if "kv" in sizes else None
        return AttentionSpec(getattr(torch, name), d, value_dim, groups, has_cap, stored)
    rounded = [word.removeprefix("activations=") for word in rest if "=" in word]
    steps = tuple(word for word in rest if "=" not in word)
    return KernelSpec(
        registry.format(name), getattr(torch, dtype), steps, rounded[0] if rounded else "float"
    )


def _schedule(text: str) -> Schedule:
    pairs = (choice.split("=") for choice in text.split())
    return Schedule.of({name: int(value) for name, value in pairs})
