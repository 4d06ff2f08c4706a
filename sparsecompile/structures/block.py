"""`block`: whole blocks of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.structure import Structure
from sparsecompile.structures.csr import (
    check_columns,
    check_offsets,
    check_share,
    row_offsets,
    take_stretches,
)
from sparsecompile.structures.magnitude import magnitudes, smallest

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Block(Structure):
    """CSR of blocks of `height x width`; a block is kept when any value in it is not zero.

    Index tensors: `crow` `[ceil(n / height) + 1]` int32 and `col` `[blocks]` int32, in blocks.
    Values are `[blocks, height, width]`, the tensors of `torch.sparse_bsr_tensor`:
    `dense.view(n / height, height, k / width, width)[row, :, col] = values`. Ragged edges are
    padded with zeros.
    """

    height: int
    width: int

    family = "block"

    def __post_init__(self) -> None:
        """Check the block.

        Raises:
            ValueError: a side is below 1.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a block of {self.height}x{self.width} has no values")

    @property
    def name(self) -> str:
        """`block[16x16]`."""
        return f"block[{self.height}x{self.width}]"

    @property
    def row_multiple(self) -> int:  # type: ignore[override]
        """Rows of one block."""
        return self.height

    @classmethod
    def parse(cls, parameters: str) -> Block:
        """From `16x16`.

        Raises:
            ValueError: not two sides.
        """
        height, _, width = parameters.partition("x")
        return cls(int(height), int(width))

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Both sides rounded up to whole blocks."""
        rows, cols = self._grid(shape)
        return rows * self.height, cols * self.width

    def find(self, weight: Occupancy) -> int:
        """Values in kept blocks.

        Raises:
            Reject: no block is empty.
        """
        rows, columns = self._grid(weight.shape)
        if rows * columns and self.width in _SHARED and weight.group_range(self.width)[0]:
            blocks = rows * columns
        else:
            blocks = int(self._kept(weight).sum())
        if blocks == rows * columns and blocks:
            raise Reject(f"none of the {blocks} blocks of {self.height}x{self.width} is empty")
        return blocks * self.height * self.width

    def encode(self, weight: Occupancy) -> dict[str, Tensor]:
        """`crow` and `col`."""
        kept = self._kept(weight)
        return {
            "crow": row_offsets(kept),
            "col": kept.nonzero(as_tuple=True)[1].to(torch.int32),
        }

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Row-major within each block, blocks in CSR order."""
        rows = torch.repeat_interleave(
            torch.arange(self._grid(shape)[0]), index["crow"].diff().long()
        )
        stride = self.padded(shape)[1]
        corner = rows * self.height * stride + index["col"].long() * self.width
        inside = torch.arange(self.height)[:, None] * stride + torch.arange(self.width)
        return (corner[:, None] + inside.reshape(-1)).reshape(-1)

    def take(
        self, index: Mapping[str, Tensor], shape: tuple[int, int], groups: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A stretch of blocks a block row."""
        crow, blocks = take_stretches(index["crow"], groups)
        size = self.height * self.width
        slots = (blocks[:, None] * size + torch.arange(size)).reshape(-1)
        return {"crow": crow, "col": index["col"][blocks]}, slots

    def check_index(self, index: Mapping[str, Tensor], shape: tuple[int, int], slots: int) -> None:
        """Return if blocks ascend in every block row and lie in the weight.

        Raises:
            Reject: they do not.
        """
        rows, columns = self._grid(shape)
        blocks, rest = divmod(slots, self.height * self.width)
        if rest:
            raise Reject(f"values has {slots} slots, no whole {self.height}x{self.width} blocks")
        check_offsets("crow", index["crow"], rows, blocks)
        check_columns(index["crow"], index["col"], columns, blocks)

    def index_bits(self) -> sympy.Expr:
        """An int32 a block and an int32 a block row."""
        import sympy

        from sparsecompile.formats.symbols import n, slots

        return 32 * (sympy.ceiling(n / self.height) + 1) + 32 * slots / (self.height * self.width)

    def prune(self, weight: Tensor, sparsity: float | None = None) -> Tensor:
        """Cut the given share of blocks, those of the smallest mean square first."""
        n, k = weight.shape
        blocks = self._blocks(weight.float().square())
        norms = blocks.sum((1, 3)).reshape(-1)
        mask = ~smallest(magnitudes(norms), round(check_share(sparsity) * norms.numel()))
        rows, cols = self._grid((n, k))
        full = mask.view(rows, 1, cols, 1).expand(rows, self.height, cols, self.width)
        return full.reshape(self.padded((n, k)))[:n, :k].contiguous()

    def _grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        return -(-shape[0] // self.height), -(-shape[1] // self.width)

    def _blocks(self, cells: Tensor) -> Tensor:
        """`[block rows, height, block columns, width]`, padded with zeros."""
        n, k = cells.shape
        rows, cols = self.padded((n, k))
        cells = torch.nn.functional.pad(cells, (0, cols - k, 0, rows - n))
        grid = self._grid((n, k))
        return cells.reshape(grid[0], self.height, grid[1], self.width)

    def _kept(self, weight: Occupancy) -> Tensor:
        """`[block rows, block columns]` bool: blocks that hold a value.

        Columns are folded first, through the counts that all structures share.
        """
        if self.width in _SHARED:
            counts = weight.group_counts(self.width)
            n, cols = counts.shape
            rows = -(-n // self.height)
            counts = torch.nn.functional.pad(counts, (0, 0, 0, rows * self.height - n))
            lines = counts.view(rows, self.height, cols)
            kept = lines[:, 0] != 0
            for line in range(1, self.height):
                kept |= lines[:, line] != 0
            return kept
        return self._blocks(weight.mask).any(3).any(1)


_SHARED = (1, 2, 4, 8, 16, 32, 64)
"""Widths whose counts other structures need too."""

COMPONENTS = (
    Block(1, 16),
    Block(4, 1),
    Block(8, 8),
    Block(16, 16),
    Block(32, 32),
    Block(64, 64),
)
