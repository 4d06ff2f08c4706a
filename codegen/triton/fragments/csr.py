"""`csr` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsecompile.codegen.triton.fragment import TritonStructure
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec


class TritonCSR(TritonStructure):
    """One column index a slot."""

    family = "csr"
    reads = "rows"

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """The tensors of the Packed."""
        return {**packed.index, "values": values}

    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """Four bytes a row and a slot."""
        return {"crow": "(rows + 1) * 4", "col": "entry_of(crow_part(weight, n, k), n) * 4"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Says what the parts are; the template reads them."""
        return "# csr: slots crow[r] .. crow[r + 1] of row r; col[slot] is a slot's column.\n"


COMPONENTS = (TritonCSR(),)
