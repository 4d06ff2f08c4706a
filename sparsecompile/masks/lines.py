"""Tiles that are crossed by every s-th diagonal, or hold every s-th column."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid


def crossed(grid: Grid, step: int) -> Tensor:
    """What is known of tiles of `(q - kv) % step == 0`: `[1, 1, rows, columns]` int8."""
    least = grid.queries[:, :1] - grid.keys[:, -1]
    most = grid.queries[:, -1:] - grid.keys[:, 0]
    return _known(most // step * step >= least, step)


def holding(grid: Grid, step: int, last: int) -> Tensor:
    """What is known of tiles of `kv % step >= step - last`: `[1, 1, rows, columns]` int8."""
    # Those are the columns before a multiple of the step, and what is not before all is before one.
    first, end = grid.keys[:, 0], grid.keys[:, -1] + 1
    is_held = (end + last - 1) // step * step > first
    return _known(is_held.expand(len(grid.queries), -1), 1 if last >= step else step)


def _known(is_crossed: Tensor, step: int) -> Tensor:
    inside = FULL if step == 1 else PARTIAL
    return torch.where(is_crossed, inside, NONE).to(torch.int8)[None, None]
