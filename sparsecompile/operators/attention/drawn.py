"""Pictures of masks in reports."""

from __future__ import annotations

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
    if queries <= FEW_QUERIES or problem.density == 1:
        return ""
    return picture(BlockMask.of(kept.places(queries, keys)), rows=ROWS)
