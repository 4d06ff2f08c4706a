"""TritonLinear: what all Triton templates of packed linears share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.codegen.triton.decoding import render_decoding
from sparsecompile.codegen.triton.epilogues import check_epilogue, render_finish, render_scales
from sparsecompile.codegen.triton.fragment import (
    ELEMENTS,
    TILE,
    TritonStructure,
    codec_fragment,
    structure_fragment,
)
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.layout import arrange, render_parts
from sparsecompile.codegen.triton.rounding import check_rounding, render_rounding
from sparsecompile.codegen.triton.signature import Signature, linear_signature
from sparsecompile.codegen.triton.template import TritonTemplate, check_target
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source
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


class TritonLinear(TritonTemplate[KernelSpec]):
    """Assembled from a structure's and a codec's fragments; one layout serves every m.

    Functions of a generated module take `x` `[m, k]` with rows `x_stride` apart (int8 where
    activations are rounded, with `x_scales` `[m]` float32, else None), `weight`, a layout, `bias`
    `[n]` or None, `operand0` and `operand1` `[m, n]` or None, and `y` `[m, n]`.
    """

    usual: ClassVar[Mapping[str, int]] = {"n": 4096, "k": 4096}
    reads: ClassVar[str]

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if the target is a GPU that Triton compiles for and both parts have fragments.

        Raises:
            Reject: another device, an old GPU, no fragment or one that is read in another way,
                a codec that does not say how values are coded, an unknown epilogue step or rounding
                of x.
        """
        check_target(spec, target)
        structure = structure_fragment(registry, spec.format.structure)
        if structure.reads != self.reads:
            raise Reject(f"{spec.format.structure} is read by {structure.reads}, not {self.reads}")
        codec_fragment(registry, spec.format.codec)
        check_epilogue(spec.epilogue)
        check_rounding(spec.activations)
        if not spec.coding.are_integers and spec.activations != "float":
            raise Reject(f"{spec.activations} activations need integer weights")

    def signature(self, spec: KernelSpec, launch: Launch, shape: tuple[int, ...]) -> Signature:
        """For a weight `(n, k)`, with a bias."""
        n, k = shape
        return linear_signature(spec, launch, splits=launch.splits(n, -(-k // TILE)))

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
            render_decoding(spec),
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
