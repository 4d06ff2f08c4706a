"""`block` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsecompile.codegen.triton.fragment import TritonStructure
from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.block import Block

LARGEST = 128


class TritonBlock(TritonStructure):
    """Kept blocks, gathered one band of rows at a time."""

    family = "block"
    reads = "blocks"

    def reader(self, structure: Structure) -> TritonStructure:
        """This, for blocks that fit in registers.

        Raises:
            Reject: they are too large.
        """
        block = _block(structure)
        if max(block.height, block.width) > LARGEST:
            raise Reject(
                f"blocks of {block.height}x{block.width} do not fit in registers, "
                f"at most {LARGEST}x{LARGEST} do"
            )
        return self

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """The tensors of the Packed."""
        return {**packed.index, "values": values}

    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """Four bytes a band and a block."""
        height = _block(structure).height
        return {
            "crow": f"(tl.cdiv(rows, {height}) + 1) * 4",
            "col": f"entry_of(crow_part(weight, n, k), tl.cdiv(n, {height})) * 4",
        }

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Says what the parts are; the template reads them."""
        return f"# {part}: blocks crow[b] .. crow[b + 1] of band b; col is in blocks.\n"


def _block(structure: Structure) -> Block:
    if not isinstance(structure, Block):
        raise Reject(f"{structure} is not a block structure")
    return structure


COMPONENTS = (TritonBlock(),)
