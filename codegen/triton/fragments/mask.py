"""A bit a column: how structures are read whose slots are in row-major order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.triton.fragment import TILE, TritonStructure
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.bits import pack_bits

WORDS = TILE // 32

TEXT = f'''\
# {{name}}: a bit a column, {WORDS} words a tile, and the slot in which each tile begins.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows, `[rows, {TILE}]`, a load for every value."""
    at = rows.to(tl.int64) * tl.cdiv(k, {TILE}) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * {WORDS} + tl.arange(0, {WORDS})[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    bits = (word[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1
    kept = bits.reshape(rows.shape[0], {TILE})
    starts = starts_part(weight, n, k).to(tl.pointer_type(tl.int32))
    start = tl.load(starts + at, mask=inside, other=0)
    # A kept column's slot comes after those of the kept columns before it.
    slots = start[:, None] + tl.cumsum(kept, 1) - kept
    return values_at(values_part(weight, n, k), slots, kept != 0)
'''


class TritonMask(TritonStructure):
    """Bits become slots by a running count."""

    reads = "scattered"

    def mask(self, packed: Packed) -> Tensor:
        """Which columns have a slot: `[n, columns]` bool, those that only pad included."""
        rows, columns = packed.format.structure.padded(packed.shape)
        kept = torch.zeros(rows * columns, dtype=torch.bool)
        kept[packed.places.flat] = True
        return kept.view(rows, columns)

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """`words` `[n * tiles * 4]` and `starts` `[n * tiles]`, int32; `values` as they are."""
        n, k = packed.shape
        tiles, kept = -(-k // TILE), self.mask(packed)
        # There may be a tile more, of padding alone, whose slots count all the same.
        kept = F.pad(kept, (0, -kept.shape[1] % TILE))
        counts = kept.view(n, kept.shape[1] // TILE, TILE).sum(2)
        starts = (counts.view(-1).cumsum(0) - counts.view(-1)).view_as(counts)
        words = pack_bits(kept[:, : tiles * TILE]).reshape(-1).view(torch.int32)
        return {"words": words, "starts": starts[:, :tiles].to(torch.int32), "values": values}

    def sizes(self, structure: Structure) -> Mapping[str, str]:
        """A bit a column, four bytes a tile."""
        return {"words": f"rows * tiles * {TILE // 8}", "starts": "rows * tiles * 4"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`load_tile`."""
        return TEXT.format(name=part)
