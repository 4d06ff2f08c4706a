"""Contents: what the cost of a kernel depends on in a packed weight."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sparsecompile.formats.packed import Packed


class Contents:
    """What costs depend on in a packed weight, each looked up once.

    Args:
        packed: the weight.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.shape = packed.shape
        self.nbytes = packed.nbytes
        self.stored = packed.slots
        value_bytes = sum(t.numel() * t.element_size() for t in packed.values.values())
        self.value_bits = 8 * value_bytes / packed.slots if packed.slots else 0.0
        self._tiles: dict[tuple[int, int], int] = {}

    @cached_property
    def kept(self) -> Tensor:
        """Which places of the dense weight `[n, k]` hold a value that is not zero: bool."""
        return self.packed.unpack() != 0

    @cached_property
    def values(self) -> int:
        """How many values are not zero."""
        return int(self.kept.sum())

    def tiles(self, rows: int, columns: int) -> int:
        """How many tiles of this size hold a value that is not zero."""
        key = (rows, columns)
        if key not in self._tiles:
            (n, k), kept = self.shape, self.kept
            padded = torch.nn.functional.pad(kept, (0, -k % columns, 0, -n % rows))
            tiles = padded.view(-(-n // rows), rows, -(-k // columns), columns)
            self._tiles[key] = int(tiles.any(3).any(1).sum())
        return self._tiles[key]
