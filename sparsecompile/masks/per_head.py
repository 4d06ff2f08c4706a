"""`per_head(a;b)`: another pattern for each head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.masks.full import Full
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.pattern import Composed, MaskPattern
from sparsecompile.masks.text import split


@dataclass(frozen=True, eq=False)
class PerHead(Composed):
    """`parts[h]`; none of them tells heads apart itself."""

    family = "per_head"

    @property
    def name(self) -> str:
        """`per_head(causal;window(4))`."""
        return f"per_head({';'.join(map(str, self.parts))})"

    @classmethod
    def parse(cls, parameters: str, read: Callable[[str], MaskPattern]) -> PerHead:
        """From patterns between semicolons."""
        return cls(tuple(map(read, split(parameters, ";"))))

    @property
    def heads(self) -> int:
        """One for each part."""
        return len(self.parts)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of the head's part."""
        kept = torch.zeros((), dtype=torch.bool)
        for head, part in enumerate(self.parts):
            kept = kept | ((h == head) & part.keeps(b, h, q, kv))
        return kept

    def tiles(self, grid: Grid) -> Tensor:
        """Beside each other."""
        known = [part.tiles(grid).expand(self.batch, -1, -1, -1) for part in self.parts]
        return torch.cat(known, 1)


COMPONENTS = (PerHead((Full(),)),)
