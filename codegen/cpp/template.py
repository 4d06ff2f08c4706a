"""CppTemplate: what all C++ templates share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from sparsecompile.codegen.cpp.epilogues import check_epilogue, render_epilogue
from sparsecompile.codegen.cpp.fragment import ELEMENTS, fragment_of
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.rounding import check_rounding, render_rounding
from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.cpp.weight import render_weight
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.registry import Registry

HEAD = """\
// {spec}
// template: {name}; schedule: {schedule}; target: {target}
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
"""
FIRST = ("arguments.h", "prelude.h", "numbers.h")


class CppTemplate(Template):
    """Assembled from a structure's and a codec's fragments, an epilogue, and files of loops."""

    language = "cpp"
    kernels: ClassVar[tuple[tuple[str, int | None], ...]]
    """See `Source.kernels`."""
    stages: ClassVar[tuple[tuple[str, int], ...]] = ()
    """See `Source.stages`."""

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if both parts have C++ fragments.

        Raises:
            Reject: another device, no fragment, an unknown epilogue step or rounding of x.
        """
        if target.device != "cpu":
            raise Reject(f"C++ is for CPUs, not for {target.device}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"{spec.dtype} activations have no C++ type")
        for part in (spec.format.structure, spec.format.codec):
            fragment_of(registry, part)
        check_epilogue(spec.epilogue)
        check_rounding(spec.activations)

    @abstractmethod
    def files(self, spec: KernelSpec, schedule: Schedule) -> Sequence[str]:
        """Files of `text` that make the functions, in order."""

    def isa(self, schedule: Schedule, target: Target) -> str:
        """The instruction set that a schedule is written for: the target's, or one before it."""
        return target.isa

    def constants(self, spec: KernelSpec, schedule: Schedule) -> Mapping[str, int]:
        """What the files read besides the schedule's choices."""
        return {}

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The canonical tensors, from which the kernel's own `sc_prepack` makes the layout."""
        return concatenate("canonical", packed)

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Constants, the canonical weight and its fragments, epilogue, loops: a file of its own."""
        structure = fragment_of(registry, spec.format.structure)
        codec = fragment_of(registry, spec.format.codec)
        constants = {**dict(schedule.choices), **self.constants(spec, schedule)}
        files = self.files(spec, schedule)
        target = replace(target, isa=self.isa(schedule, target))
        text = "\n".join(
            (
                HEAD.format(spec=spec, name=self.name, schedule=schedule, target=target),
                *map(read, FIRST),
                render_weight(spec, constants, structure, codec),
                structure.render(spec.format.structure, spec),
                codec.render(spec.format.codec, spec),
                read("activations.h"),
                render_rounding(spec.activations),
                render_epilogue(spec.epilogue),
                *map(read, files),
            )
        )
        name = f"{self.name}_{spec.identifier}_{schedule.tag}"
        prepacks = any(file.endswith("/prepack.h") for file in files)
        return Source(name, "cpp", text, self.kernels, prepacks, target.isa, self.stages)
