"""Specs for tests of Triton kernels: every structure x codec in turn with dtypes and epilogues."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from kernel_cases import EPILOGUES

from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.linear import TritonLinear
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Format
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import default_registry

TEMPLATES = tuple(t for t in default_registry().all(Template) if isinstance(t, TritonLinear))
STRUCTURES = default_registry().all(Structure)
CODECS = default_registry().all(Codec)
H100 = Target.parse("sm_90")


def template_of(spec: KernelSpec, target: Target = H100) -> TritonLinear | None:
    """The first template that serves a spec, None where none does."""
    for template in TEMPLATES:
        try:
            template.supports(spec, target, default_registry())
        except Reject:
            continue
        return template
    return None


def specs(dtypes: tuple[torch.dtype, ...]) -> Iterator[KernelSpec]:
    """Every structure x codec that some template serves, once; what else there is takes turns."""
    turn = 0
    for structure in STRUCTURES:
        for codec in CODECS:
            coding = codec.coding(torch.float32)
            rounded = coding is not None and coding.are_integers and turn % 3 == 2
            spec = KernelSpec(
                Format(structure, codec),
                dtypes[turn % len(dtypes)],
                EPILOGUES[turn % len(EPILOGUES)],
                "int8" if rounded else "float",
            )
            if template_of(spec) is not None:
                yield spec
                turn += 1


def build(spec: KernelSpec, target: Target = H100) -> TritonKernel:
    """The kernel of a spec with the default schedule."""
    template = template_of(spec, target)
    assert template is not None, f"no template serves {spec}"
    schedule = template.schedules(spec, target)[0]
    return TritonCodegen().build(spec, template, schedule, target, default_registry())
