"""`bitmap` in Triton."""

from __future__ import annotations

from torch import Tensor

from sparsecompile.codegen.triton.fragments.mask import TritonMask
from sparsecompile.formats.packed import Packed
from sparsecompile.structures.bits import unpack_bits


class TritonBitmap(TritonMask):
    """The bits are there already."""

    family = "bitmap"

    def mask(self, packed: Packed) -> Tensor:
        """`bits`, without the list of places."""
        return unpack_bits(packed.index["bits"], packed.shape[1])


COMPONENTS = (TritonBitmap(),)
