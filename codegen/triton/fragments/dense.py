"""`dense` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.triton.fragment import TILE, TritonStructure
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

TEXT = f'''\
# dense: every value, rows padded with zeros to whole tiles.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, {TILE}]`."""
    first = (rows.to(tl.int64) * tl.cdiv(k, {TILE}) + tile) * {TILE}
    return values_in(values_part(weight, n, k), first, inside, {TILE})
'''


class TritonDense(TritonStructure):
    """Values row by row."""

    family = "dense"
    reads = "tiles"

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """`values` `[n, tiles * TILE]`."""
        n, k = packed.shape
        return {"values": F.pad(values.view(n, k), (0, -k % TILE))}

    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """Nothing comes after the values."""
        return {}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`load_tile`."""
        return TEXT


COMPONENTS = (TritonDense(),)
