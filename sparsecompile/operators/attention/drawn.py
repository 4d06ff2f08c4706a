"""Pictures of masks in reports."""

from __future__ import annotations

import torch

from sparsecompile.kernels.problem import Problem
from sparsecompile.masks.block_mask import FEW_QUERIES, BlockMask
from sparsecompile.masks.picture import picture
from sparsecompile.operators.attention.kept import Kept
from sparsecompile.operators.attention.spec import AttentionSpec

ROWS = 16
"""Lines are about twice as high as characters are wide."""


def drawn(problem: Problem[AttentionSpec], kept: Kept) -> str:
    """Queries from top to bottom, keys from left to right; empty where little can be seen.

    Of the most queries that a kernel was looked for: where masks are scanned nothing is known.
    """
    queries, keys = problem.rows[-1], max(problem.shape[-1], problem.rows[-1])
    mask = kept.example(queries, keys, torch.float32)
    if kept.causal:
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()
    if queries <= FEW_QUERIES or not mask.numel() or problem.density == 1:
        return ""
    blocks = BlockMask.of(mask if mask.dtype == torch.bool else mask == 0)
    return picture(blocks, rows=ROWS)
