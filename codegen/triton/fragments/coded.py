"""Codes of a few bits in Triton: integers, places in tables and floats of 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.codegen.triton.fragment import TritonCodec
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.bits import load_stream, store_stream

TEXT = '''\
# {codec}: codes of {bits} bits one after the other, the first lowest; {meaning}.
@triton.jit
def values_at(values, slots, there):
    """What any slots have."""
    bit = slots.to(tl.int64) * {bits}
    low = tl.load(values + bit // 8, mask=there, other=0).to(tl.int32)
{high}    code = {code} & {mask}
    return tl.where(there, code {shift}, 0).to(tl.{stored})


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])
'''

HIGH = """\
    high = tl.load(values + (bit + {last}) // 8, mask=there, other=0).to(tl.int32)
"""


@dataclass(frozen=True)
class TritonCoded(TritonCodec):
    """What is stored is a code; what a kernel reads of it is an integer, and 0 where nothing is.

    Attributes:
        family: of the codecs that it reads.
    """

    family: str  # type: ignore[misc]

    def elements(self, packed: Packed) -> Tensor:
        """Codes less the one that most often stands for zero, int16: padding has that."""
        coding, values = _coding(packed), packed.values["values"]
        if values.dtype == torch.int8:
            return values.to(torch.int16)
        codes = load_stream(values, coding.bits, packed.slots)
        return codes.to(torch.int16) - _middle(coding)

    def store(self, elements: Tensor, packed: Packed) -> Tensor:
        """As the codec does, padding included."""
        coding = _coding(packed)
        if packed.values["values"].dtype == torch.int8:
            return elements.reshape(-1).to(torch.int8).view(torch.uint8)
        codes = elements.reshape(-1) + _middle(coding)
        return store_stream(codes.to(torch.uint8), coding.bits)

    def parts(self, packed: Packed) -> Mapping[str, Tensor]:
        """Scales, offsets and the table, as far as there are some."""
        coding, found = _coding(packed), dict(super().parts(packed))
        if coding.offsets is not None:
            found["offsets"] = packed.values[coding.offsets]
        if coding.kind == "table":
            found["table"] = packed.values.get("table", torch.tensor(coding.table))
        return found

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Loads of the bytes that a code is in."""
        coding, bits = spec.coding, spec.coding.bits
        crosses = 8 % bits != 0
        meaning, shift = "read as the integer", f"- {_middle(coding)}"
        if not coding.is_scaled:
            meaning, shift = "read as the code and 1", "+ 1"
        word = "(low | high << 8)" if crosses else "low"
        code = f"({word} >> (bit % 8).to(tl.int32))" + " ^ 128" * (
            coding.kind == "affine" and bits == 8
        )
        return TEXT.format(
            codec=part,
            bits=bits,
            meaning=meaning,
            high=HIGH.format(last=bits - 1) if crosses else "",
            code=code,
            mask=2**bits - 1,
            shift=shift,
            stored="int8" if coding.is_scaled else "int16",
        )


def _middle(coding: Coding) -> int:
    return 1 << coding.bits - 1


def _coding(packed: Packed) -> Coding:
    coding = packed.format.codec.coding(packed.dtype)
    if coding is None:
        raise TypeError(f"{packed.format.codec} does not say how a value is coded")
    return coding


COMPONENTS = tuple(map(TritonCoded, ("codebook", "fp8", "nf4")))
