"""TritonTemplate: what all Triton templates share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.codegen.triton.epilogues import check_epilogue, render_finish, render_scales
from sparsecompile.codegen.triton.fragment import (
    ELEMENTS,
    TritonStructure,
    codec_fragment,
    structure_fragment,
)
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.layout import arrange, render_parts
from sparsecompile.codegen.triton.rounding import check_rounding, render_rounding
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source, Template
from sparsecompile.registry import Registry

HEAD = '''\
"""{spec}

template: {name}; target: {target}
{schedule}
y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
{launches}

{arguments}
"""

import triton
import triton.language as tl
'''

FIRST_CAPABILITY = (8, 0)


class TritonTemplate(Template):
    """Assembled from a structure's and a codec's fragments; one layout serves every m.

    Functions of a generated module take `x` `[m, k]` with rows `x_stride` apart (int8 where
    activations are rounded, with `x_scales` `[m]` float32, else None), `weight`, a layout, `bias`
    `[n]` or None, `operand0` and `operand1` `[m, n]` or None, and `y` `[m, n]`.
    """

    language = "triton"
    reads: ClassVar[str]

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if the target is a GPU that Triton compiles for and both parts have fragments.

        Raises:
            Reject: another device, an old GPU, no fragment or one that is read in another way,
                values that are neither floats nor integers with scales, an unknown epilogue step
                or rounding of x.
        """
        if target.device != "cuda":
            raise Reject(f"Triton is for GPUs, not for {target.device}")
        gpu = target.gpu
        if gpu.vendor == "nvidia" and gpu.capability < FIRST_CAPABILITY:
            raise Reject(f"needs sm_80, this is {target.arch}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"{spec.dtype} activations have no Triton type")
        structure = structure_fragment(registry, spec.format.structure)
        if structure.reads != self.reads:
            raise Reject(f"{spec.format.structure} is read by {structure.reads}, not {self.reads}")
        codec_fragment(registry, spec.format.codec)
        check_epilogue(spec.epilogue)
        check_rounding(spec.activations)
        if not spec.coding.are_integers and spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")

    @abstractmethod
    def launches(self, spec: KernelSpec, schedule: Schedule) -> tuple[Launch, ...]:
        """How each range of m is started, by rising m, the last without an end."""

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The default."""
        return (self.default(spec, target),)

    @abstractmethod
    def default(self, spec: KernelSpec, target: Target) -> Schedule:
        """The best guess."""

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The default, and those of `variations`; a function that spills is not measured."""
        default = self.default(spec, target)
        more = (dict(default.choices) | choices for choices in self.variations(target))
        return tuple(dict.fromkeys((default, *map(Schedule.of, more))))

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """In what the schedules of a full search differ from the default.

        Functions are measured one by one: in one schedule all of them may differ at once.
        """
        return ()

    def layout(self, schedule: Schedule) -> str:
        """One layout for all schedules."""
        return f"triton {self.name}"

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """See `codegen.triton.layout`."""
        structure = structure_fragment(registry, packed.format.structure)
        return arrange(packed, structure, codec_fragment(registry, packed.format.codec))

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Parts, fragments, epilogue, loops: a module that stands alone."""
        structure = structure_fragment(registry, spec.format.structure)
        codec = codec_fragment(registry, spec.format.codec)
        launches = self.launches(spec, schedule)
        texts = (
            HEAD.format(
                spec=spec,
                name=self.name,
                target=target,
                schedule=fill(f"schedule: {schedule}", 100),
                launches="\n".join(map(str, launches)),
                arguments=fill(_arguments(spec, launches), 100),
            ),
            render_parts(spec, structure),
            codec.render(spec.format.codec, spec),
            structure.render(spec.format.structure, spec),
            render_scales(spec.coding),
            render_finish(spec),
            render_rounding(spec.activations),
            self.loops(spec, schedule, structure),
        )
        name = f"{self.name}_{spec.identifier}_{schedule.tag}"
        kernels = tuple((launch.symbol, launch.largest_m) for launch in launches)
        text = "\n\n".join(text for text in texts if text)
        return Source(name, "triton", text, kernels)

    @abstractmethod
    def loops(self, spec: KernelSpec, schedule: Schedule, structure: TritonStructure) -> str:
        """The functions that are launched, `unpack` among them."""


def _arguments(spec: KernelSpec, launches: Sequence[Launch]) -> str:
    """What the launched functions take, for whoever reads the module."""
    x = "x `[m, k]`"
    if spec.activations != "float":
        x += " as integers, with a scale a row in x_scales `[m]`"
    y = "y `[m, n]`"
    if any(launch.programs for launch in launches):
        y += "; where k is split, sums over its parts `[SPLITS, m, n]`, which `add_parts` adds"
    return (
        f"What is launched takes {x}, its rows x_stride apart; weight, a layout, as bytes; bias "
        f"`[n]` and operands of the epilogue `[m, n]`, or None; and {y}."
    )


def scaled(scales: str, indent: int = 4) -> str:
    """Lines that multiply `value` by its scales in float32; none where there are none."""
    if not scales:
        return ""
    margin = " " * indent
    return f"{margin}scales = {scales}\n{margin}value = value.to(tl.float32) * scales\n"


def precision(spec: KernelSpec) -> str:
    """What `tl.dot` has to be told to multiply float32 as such."""
    return ', input_precision="ieee"' if spec.dtype == torch.float32 else ""


def matrix_kind(spec: KernelSpec) -> str:
    """The kind of `GPU.rates` of a product of x and W."""
    return ELEMENTS[spec.dtype]
