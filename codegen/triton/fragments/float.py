"""`float` in Triton."""

from __future__ import annotations

from torch import Tensor

from sparsecompile.codegen.triton.fragment import ELEMENTS, TritonCodec
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

TEXT = '''\
# float: values as they are.
@triton.jit
def values_at(values, slots, there):
    """Values in any slots."""
    return tl.load(values.to(tl.pointer_type(tl.{element})) + slots, mask=there, other=0.0)


@triton.jit
def values_in(values, first, there, COUNT: tl.constexpr):
    """COUNT neighbours from each `first` on."""
    slots = first[:, None] + tl.arange(0, COUNT)[None, :]
    return values_at(values, slots, there[:, None])
'''


class TritonFloat(TritonCodec):
    """Values in the dtype of x."""

    family = "float"

    def elements(self, packed: Packed) -> Tensor:
        """The values."""
        return packed.values["values"]

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Plain loads."""
        return TEXT.format(element=ELEMENTS[spec.dtype])


COMPONENTS = (TritonFloat(),)
