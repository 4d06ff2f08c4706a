"""A structure that only a registry of its own knows, with its Triton fragment: pruned rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.codegen.triton.fragment import TILE, TritonStructure
from sparsecompile.formats.symbols import n

TEXT = f"""\
# kept_rows: place[row] among the rows that are kept, -1 for a row of zeros.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    place_of = place_part(weight, n, k).to(tl.pointer_type(tl.int32))
    place = tl.load(place_of + rows, mask=inside, other=-1)
    first = (place.to(tl.int64) * tl.cdiv(k, {TILE}) + tile) * {TILE}
    return values_in(values_part(weight, n, k), first, place >= 0, {TILE})
"""


@dataclass(frozen=True)
class KeptRows(sc.Structure):
    """Kept rows one after the other: `dense[row] = values.view(-1, k)[place[row]]`."""

    family = "kept_rows"

    def find(self, weight: sc.Occupancy) -> int:
        kept = int(weight.mask.any(1).sum())
        if kept == weight.shape[0]:
            raise sc.Reject(f"none of the {kept} rows is zero")
        return kept * weight.shape[1]

    def encode(self, weight: sc.Occupancy) -> dict[str, Tensor]:
        kept = weight.mask.any(1)
        return {"place": torch.where(kept, kept.cumsum(0) - 1, -1).to(torch.int32)}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        rows = (index["place"] >= 0).nonzero()
        return (rows * shape[1] + torch.arange(shape[1])).reshape(-1)

    def index_bits(self) -> sympy.Expr:
        return 32 * n


class TritonKeptRows(TritonStructure):
    family, reads = "kept_rows", "tiles"

    def arrange(self, packed: sc.Packed, values: Tensor) -> dict[str, Tensor]:
        k = packed.shape[1]
        return {"place": packed.index["place"], "values": F.pad(values.view(-1, k), (0, -k % TILE))}

    def sizes(self, structure: sc.Structure) -> Mapping[str, str]:
        return {"place": "rows * 4"}

    def render(self, part: sc.Structure | sc.Codec, spec: sc.KernelSpec) -> str:
        return TEXT


def own_registry() -> sc.Registry:
    """The built-ins, and this; nothing of it is in the default registry."""
    registry = sc.default_registry().copy()
    registry.register(KeptRows(), TritonKeptRows())
    return registry


def weight_without_rows(rows: int, columns: int) -> Tensor:
    """Every third row is kept."""
    weight = torch.randn(rows, columns)
    weight[torch.arange(rows) % 3 != 0] = 0
    return weight
