"""`int8` and `int4` in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.codegen.triton.fragment import TritonCodec
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.bits import pack_codes, unpack_codes

BYTES = '''\
# {codec}: an integer a byte.
@triton.jit
def values_at(values, slots, there):
    """Integers in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.int8)) + slots, mask=there, other=0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])
'''

NIBBLES = '''\
# {codec}: two integers a byte, the first in the lower half, as integer + 8.
@triton.jit
def values_at(values, slots, there):
    """Integers in any slots."""
    byte = tl.load(values + slots // 2, mask=there, other=0x88)
    code = (byte >> ((slots % 2) * 4).to(tl.uint8)) & 15
    return code.to(tl.int8) - 8


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    at = (first // 2)[:, None] + tl.arange(0, COUNT // 2)[None, :]
    byte = tl.load(values + at, mask=there[:, None], other=0x88)
    low = (byte & 15).to(tl.int8) - 8
    high = (byte >> 4).to(tl.int8) - 8
    return tl.join(low, high).reshape(first.shape[0], COUNT)
'''


class TritonInt8(TritonCodec):
    """A byte a slot."""

    family = "int8"

    def elements(self, packed: Packed) -> Tensor:
        """The integers."""
        return packed.values["values"]

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Plain loads."""
        return BYTES.format(codec=part)


class TritonInt4(TritonCodec):
    """Two slots a byte."""

    family = "int4"

    def elements(self, packed: Packed) -> Tensor:
        """The integers."""
        codes = unpack_codes(packed.values["values"].unsqueeze(0), 4, packed.slots)
        return codes.squeeze(0).view(torch.int8) - 8

    def store(self, elements: Tensor) -> Tensor:
        """As the codec does, zeros included."""
        return pack_codes((elements.reshape(1, -1) + 8).view(torch.uint8), 4).squeeze(0)

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Loads of bytes, and their halves."""
        return NIBBLES.format(codec=part)


COMPONENTS = (TritonInt8(), TritonInt4())
