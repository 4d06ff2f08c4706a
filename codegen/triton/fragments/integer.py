"""Integers in Triton."""

from __future__ import annotations

from sparsecompile.codegen.triton.fragments.coded import TritonCoded
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

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


TEXTS = {8: BYTES, 4: NIBBLES}
"""Of widths whose integers are read faster than codes of any width, if scales are all they have."""


class TritonInteger(TritonCoded):
    """Integers and their scales."""

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Plain loads, or loads of bytes and their halves."""
        if not spec.coding.is_scaled or spec.coding.bits not in TEXTS:
            return super().render(part, spec)
        return TEXTS[spec.coding.bits].format(codec=part)


FAMILIES = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "ternary")
COMPONENTS = tuple(map(TritonInteger, FAMILIES))
