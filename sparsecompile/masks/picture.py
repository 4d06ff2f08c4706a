"""Pictures of masks: characters for `explain`, an SVG for the HTML report."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.masks.counts import counts

LARGEST = 32
"""Rows and columns of a picture."""
_SHADES = "·░▒▓█"
_CELL = 8
"""Pixels."""


def picture(mask: BlockMask, b: int = 0, h: int = 0, *, rows: int = LARGEST) -> str:
    """Queries from top to bottom, keys from left to right, at most `LARGEST` keys.

    A character stands for some tiles, or for a query and `TILE` keys where queries are few: `█`
    where all is kept, `·` where nothing is, and three shades between them. There are at most so
    many rows.
    """
    lines = []
    for row in _shares(mask, b, h, rows).tolist():
        shades = [_shade(share) for share in row]
        lines.append("".join(shades))
    return "\n".join(lines)


def svg(mask: BlockMask, b: int = 0, h: int = 0) -> str:
    """The same as an SVG: a cell is as opaque as its share; in the colour of the text around."""
    shares = _shares(mask, b, h)
    height, width = (size * _CELL for size in shares.shape)
    cells = [
        f'<rect x="{column * _CELL}" y="{row * _CELL}" width="{_CELL}" height="{_CELL}"'
        f' fill="currentColor" fill-opacity="{shares[row, column]:.2f}"/>'
        for row, column in shares.nonzero().tolist()
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img"><title>kept places of a mask</title>'
        f'<rect width="{width}" height="{height}" fill="none" stroke="currentColor"/>'
        f"{''.join(cells)}</svg>"
    )


def _shade(share: float) -> str:
    if share in (0, 1):
        return _SHADES[-int(share)]
    return _SHADES[1 + min(int(share * 3), 2)]


def _shares(mask: BlockMask, b: int, h: int, rows: int = LARGEST) -> Tensor:
    """Kept share of every cell of the picture: `[rows, columns]` float64."""
    kept, areas = counts(mask)
    cells = [_folded(each.double(), rows) for each in (kept[b, h], areas)]
    return cells[0] / cells[1]


def _folded(tiles: Tensor, rows: int) -> Tensor:
    """Sums of equally many rows and columns: at most so many rows and `LARGEST` columns."""
    for dim, largest in enumerate((rows, LARGEST)):
        size = tiles.shape[dim]
        step = max(1, -(-size // largest))
        place = torch.arange(size) // step
        folded = torch.zeros_like(tiles.narrow(dim, 0, -(-size // step)))
        tiles = folded.index_add(dim, place, tiles)
    return tiles
