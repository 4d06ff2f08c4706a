"""Verdict: whether the backend was anywhere slower than the best dense candidate."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.bench.linear import LinearRow

NOT_SLOWER = 0.97
"""Speed over the best dense candidate that counts as equal: both are measured."""


def losses(rows: Sequence[LinearRow]) -> list[LinearRow]:
    """Cases in which the backend was slower than the fastest dense candidate, the worst first."""
    sparse = (row for row in rows if row.is_sparse and row.speedup_best_dense < NOT_SLOWER)
    return sorted(sparse, key=lambda row: row.speedup_best_dense)


def verdict(rows: Sequence[LinearRow]) -> str:
    """How many cases were packed, how many the tuner left dense, and every one that was slower."""
    sparse = [row for row in rows if row.is_sparse]
    dense = [row for row in sparse if row.left_dense]
    slower = losses(rows)
    head = (
        f"{len(sparse)} cases: {len(sparse) - len(dense)} packed, {len(dense)} left dense, "
        f"{len(slower) or 'none'} slower than {NOT_SLOWER}x of the best dense candidate"
    )
    lines = [f"  slower: {_line(row)}" for row in slower]
    lines += [f"  left dense: {_line(row)}: {row.kernel}" for row in dense]
    return "\n".join((head, *lines))


def _line(row: LinearRow) -> str:
    return f"{row.case} {row.candidate} {row.speedup_best_dense:.2f}x"
