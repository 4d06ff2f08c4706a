"""Everything that can serve a spec: templates with their schedules, and library calls."""

from __future__ import annotations

from typing import Any

from sparsecompile.errors import Reject
from sparsecompile.kernels.extern import Extern
from sparsecompile.kernels.spec import Schedule, Spec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry

Candidate = tuple[Template[Any], Schedule] | Extern[Any]


def find_candidates(
    language: str, spec: Spec, target: Target, registry: Registry
) -> list[Candidate]:
    """Every template of a language, and every extern, that can serve the spec, best guess first.

    Where the weight is dense as it is, that is a library, else a template; a spec that no template
    supports has no candidates, since a dense weight needs no packing.

    Raises:
        Reject: no candidates; every refusal is in the reason.
    """
    refusals: list[str] = []
    externs: list[Candidate] = []
    for extern in registry.all(Extern):
        if extern.operator != spec.operator:
            continue
        try:
            extern.supports(spec, target)
        except Reject as refusal:
            refusals.append(f"{extern.name}: {refusal.reason}")
        else:
            externs.append(extern)
    templates: list[Candidate] = []
    for template in registry.all(Template):
        if template.language != language or template.operator != spec.operator:
            continue
        try:
            template.supports(spec, target, registry)
        except Reject as refusal:
            refusals.append(f"{template.name}: {refusal.reason}")
        else:
            templates += [(template, s) for s in template.schedules(spec, target)]
    if spec.is_dense:
        templates, externs = externs, templates
    if not templates:
        raise Reject(f"no kernel for {spec}: {'; '.join(refusals) or 'nothing registered'}")
    return templates + externs
