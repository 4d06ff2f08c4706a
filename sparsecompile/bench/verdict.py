"""Verdict: whether the backend was anywhere slower than the dense linear."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.bench.linear import LinearRow

NOT_SLOWER = 0.97
"""Speed over the dense linear that counts as equal: both are measured."""


def losses(rows: Sequence[LinearRow]) -> list[LinearRow]:
    """Cases in which the backend was slower than the compiled dense linear, the worst first."""
    sparse = (row for row in rows if row.is_sparse and row.speedup_compiled_dense < NOT_SLOWER)
    return sorted(sparse, key=lambda row: row.speedup_compiled_dense)


def verdict(rows: Sequence[LinearRow]) -> str:
    """What was packed, what the tuner left dense, and every case that was slower than dense.

    Linears that are called as they are save the overhead of a compiled call, which no backend
    can: cases that are slower than the best of these only are named apart.
    """
    sparse = [row for row in rows if row.is_sparse]
    dense = [row for row in sparse if row.left_dense]
    slower = losses(rows)
    behind = [row for row in sparse if row.speedup_best_dense < NOT_SLOWER and row not in slower]
    behind.sort(key=lambda row: row.speedup_best_dense)
    head = (
        f"{len(sparse)} cases: {len(sparse) - len(dense)} packed, {len(dense)} left dense; "
        f"slower than {NOT_SLOWER}x of the dense linear that Inductor compiles: "
        f"{len(slower) or 'none'}; only of a dense linear that no graph calls: "
        f"{len(behind) or 'none'}"
    )
    lines = [f"  slower: {_line(row, row.speedup_compiled_dense)}" for row in slower]
    lines += [f"  behind a bare call: {_line(row, row.speedup_best_dense)}" for row in behind]
    lines += [
        f"  left dense: {_line(row, row.speedup_compiled_dense)}: {row.kernel}" for row in dense
    ]
    return "\n".join((head, *lines))


def _line(row: LinearRow, speedup: float) -> str:
    return f"{row.case} {row.candidate} {speedup:.2f}x"
