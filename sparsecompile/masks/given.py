"""Given: what a `BlockMask` keeps, as a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.masks.block_mask import FEW_QUERIES, TILE, BlockMask
from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid
from sparsecompile.masks.pattern import MaskPattern

_DROPPED = -3
"""Beside the kinds of a `BlockMask`, which are kept."""


@dataclass(frozen=True, eq=False)
class Given(MaskPattern):
    """The places of a `BlockMask`, whose first key is at position 0; it has no text.

    Attributes:
        mask: the mask; tiles that are biased count as full.
        first: position of its first query.
    """

    mask: BlockMask
    first: int = 0

    family = "given"

    @property
    def name(self) -> str:
        """Only the size: `given[2x1x128x128]`."""
        return f"given[{'x'.join(map(str, self.mask.shape))}]"

    @property
    def batch(self) -> int:
        """Of the mask."""
        return self.mask.shape[0]

    @property
    def heads(self) -> int:
        """Of the mask."""
        return self.mask.shape[1]

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the bit of a place, where its tile has bits."""
        b, h, q = b.clamp(max=self.batch - 1), h.clamp(max=self.heads - 1), q - self.first
        if self._has_words:
            return (self.mask.bits[b, h, q, kv // TILE] >> kv % TILE & 1).bool()
        kind = self._kinds[b, h, q // TILE, kv // TILE]
        bits = self._bits[kind.clamp(min=-1), kv % TILE] >> q % TILE & 1
        return torch.where(kind < 0, kind != _DROPPED, bits.bool())

    def tiles(self, grid: Grid) -> Tensor:
        """By their kinds; where there are none, by the words of all queries."""
        if self._has_words:
            there = self.mask.bits.bool().any(2, keepdim=True)
            return torch.where(there, PARTIAL, NONE).to(torch.int8)
        known = torch.where(self._kinds < 0, FULL, PARTIAL)
        return torch.where(self._kinds == _DROPPED, NONE, known).to(torch.int8)

    @property
    def _has_words(self) -> bool:
        return self.mask.shape[2] <= FEW_QUERIES

    @cached_property
    def _kinds(self) -> Tensor:
        """Of every tile: `[batch, heads, rows, columns]` int64."""
        *masks, q, kv = self.mask.shape
        rows, columns = -(-q // TILE), -(-kv // TILE)
        kinds = torch.full((masks[0] * masks[1] * rows, columns), _DROPPED)
        row = torch.repeat_interleave(torch.arange(len(kinds)), self.mask.starts.diff())
        kinds[row, self.mask.tiles.long()] = self.mask.kinds.long()
        return kinds.view(*masks, rows, columns)

    @cached_property
    def _bits(self) -> Tensor:
        """With one more row at the end, for tiles that have none."""
        return torch.nn.functional.pad(self.mask.bits, (0, 0, 0, 1))
