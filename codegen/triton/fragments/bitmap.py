"""`bitmap` in Triton."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codec import Codec
from sparsecompile.codegen.triton.fragment import TILE, TritonStructure, Values
from sparsecompile.packed import Packed, Structure
from sparsecompile.spec import KernelSpec

TEXT = f'''\
# bitmap: a bit a column, {TILE // 32} words a tile, and the slot in which each tile begins.
@triton.jit
def load_tile(weight, rows, inside, tile, n, k):
    """One tile of some rows."""
    at = rows.to(tl.int64) * tl.cdiv(k, {TILE}) + tile
    words = words_part(weight, n, k).to(tl.pointer_type(tl.int32))
    places = at[:, None] * {TILE // 32} + tl.arange(0, {TILE // 32})[None, :]
    word = tl.load(words + places, mask=inside[:, None], other=0)
    bits = (word[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1
    kept = bits.reshape(rows.shape[0], {TILE})
    starts = starts_part(weight, n, k).to(tl.pointer_type(tl.int32))
    start = tl.load(starts + at, mask=inside, other=0)
    slots = start[:, None] + tl.cumsum(kept, 1) - kept
    return values_at(values_part(weight, n, k), slots, kept != 0)
'''


class TritonBitmap(TritonStructure):
    """Bits become slots by a running count."""

    family = "bitmap"
    reads = "scattered"

    def arrange(self, packed: Packed, values: Tensor) -> dict[str, Tensor]:
        """`words` `[n * tiles * 4]` and `starts` `[n * tiles]`, int32; `values` as they are."""
        n, k = packed.shape
        tiles = -(-k // TILE)
        bits = packed.index["bits"]
        padded = F.pad(bits, (0, tiles * TILE // 8 - bits.shape[1]))
        counts = torch.zeros(n, tiles, dtype=torch.int64)
        for bit in range(8):
            counts += (padded.view(n, tiles, TILE // 8) >> bit & 1).sum(2)
        starts = counts.reshape(-1).cumsum(0) - counts.reshape(-1)
        words = padded.reshape(-1).view(torch.int32)
        return {"words": words, "starts": starts.to(torch.int32), "values": values}

    def sizes(self, structure: Structure, values: Values) -> Mapping[str, str]:
        """A bit a column, four bytes a tile."""
        return {"words": f"rows * tiles * {TILE // 8}", "starts": "rows * tiles * 4"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`load_tile`."""
        return TEXT


COMPONENTS = (TritonBitmap(),)
