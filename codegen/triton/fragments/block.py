"""`block` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsecompile.codec import Codec
from sparsecompile.codegen.triton.fragment import TritonStructure, Values
from sparsecompile.errors import Reject
from sparsecompile.packed import Packed, Structure
from sparsecompile.spec import KernelSpec
from sparsecompile.structures.block import Block

LOWEST, HIGHEST, WIDEST = 16, 128, 128


class TritonBlock(TritonStructure):
    """Kept blocks, gathered one band of rows at a time."""

    family = "block"
    reads = "blocks"

    def check(self, structure: Structure) -> None:
        """Return if a band of blocks is as high as a matrix instruction.

        Raises:
            Reject: it is lower, too high for registers, or a side is no power of two.
        """
        height, width = self.sides(structure)
        if height < LOWEST:
            raise Reject(
                f"blocks of {height} rows are lower than the {LOWEST} of a matrix instruction"
            )
        if height > HIGHEST or width > WIDEST:
            raise Reject(f"blocks of {height}x{width} are larger than {HIGHEST}x{WIDEST}")
        for side in (height, width):
            if side & (side - 1):
                raise Reject(f"blocks of {height}x{width} have a side that is no power of two")

    def sides(self, structure: Structure) -> tuple[int, int]:
        """Height and width of a block."""
        if not isinstance(structure, Block):
            raise Reject(f"{structure} is not a block structure")
        return structure.height, structure.width

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """The tensors of the Packed."""
        return {**packed.index, "values": values}

    def sizes(self, structure: Structure, values: Values) -> Mapping[str, str]:
        """Four bytes a band and a block."""
        height, _ = self.sides(structure)
        return {
            "crow": f"(tl.cdiv(rows, {height}) + 1) * 4",
            "col": f"entry_of(crow_part(weight, n, k), tl.cdiv(n, {height})) * 4",
        }

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Says what the parts are; the template reads them."""
        return f"# {part}: blocks crow[b] .. crow[b + 1] of band b; col is in blocks.\n"


COMPONENTS = (TritonBlock(),)
