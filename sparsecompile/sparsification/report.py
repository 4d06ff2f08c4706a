"""SparsifyReport: what became of every weight."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.budget import Allocation
from sparsecompile.sparsification.smooth import Smoothed

SCHEMA = 1
"""Version of `SparsifyReport.to_json`; rises when a field changes its meaning or goes."""

WIDTH = 100


@dataclass(frozen=True)
class SparsifiedWeight:
    """One weight.

    Attributes:
        name: of its module in the model.
        shape: `(n, k)`.
        dtype: such as `float32`.
        pattern: what it keeps, such as `2:4`.
        kept: share of values that are not zero.
        error: root of the squared error of the layer's outputs over that of their squares, on the
            calibration; without one, of the weight's values.
        dense_bytes: bytes as it is.
        packed_bytes: bytes in the format of its pattern.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    pattern: str
    kept: float
    error: float
    dense_bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class SparsifyReport:
    """What one call of `sparsify` did.

    Attributes:
        method: `repr` of the method.
        weights: those that were changed, in the order of the calibration.
        seconds: how long it took.
        blocks: how many parts of the model were calibrated one after the other; 0 without
            calibration.
        smoothed: norms that linears read, where that was asked for.
        allocation: what was chosen within a budget, and why.
    """

    method: str
    weights: tuple[SparsifiedWeight, ...]
    seconds: float
    blocks: int
    smoothed: tuple[Smoothed, ...] = ()
    allocation: Allocation | None = None

    @property
    def dense_bytes(self) -> int:
        """Of all these weights, before."""
        return sum(w.dense_bytes for w in self.weights)

    @property
    def packed_bytes(self) -> int:
        """Of all these weights, packed."""
        return sum(w.packed_bytes for w in self.weights)

    @property
    def kept(self) -> float:
        """Share of all their values that are not zero."""
        sizes = [w.shape[0] * w.shape[1] for w in self.weights]
        kept = sum(w.kept * size for w, size in zip(self.weights, sizes, strict=True))
        return kept / max(sum(sizes), 1)

    def to_json(self) -> str:
        """All of it, with its `schema`."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2)

    def plot(self, path: str | Path) -> None:
        """Draw loss against cost: the frontier, patterns for all weights, and what was chosen.

        Args:
            path: the file; its ending says what kind, such as `.png` or `.svg`.

        Raises:
            OptionError: there was no budget.
            SparseCompileError: matplotlib is not installed.
        """
        from sparsecompile.sparsification.plot import plot_allocation

        if self.allocation is None:
            raise OptionError("budget", "there is a frontier where there was a budget")
        plot_allocation(self.allocation, Path(path))

    def __str__(self) -> str:
        """A table that fits 100 columns; weights whose names differ only in numbers share a row."""
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("weights", overflow="fold")
        for head in ("count", "n x k", "pattern", "kept", "error", "MB"):
            table.add_column(head, justify="left" if head == "pattern" else "right", no_wrap=True)
        alike: dict[tuple[object, ...], list[SparsifiedWeight]] = {}
        for w in self.weights:
            alike.setdefault((re.sub(r"\d+", "*", w.name), w.shape, w.pattern), []).append(w)
        for (name, *_), rows in alike.items():
            table.add_row(
                str(name) if len(rows) > 1 else rows[0].name,
                str(len(rows)),
                " x ".join(map(str, rows[0].shape)),
                rows[0].pattern,
                _shares([w.kept for w in rows]),
                _shares([w.error for w in rows]),
                _megabytes(rows),
            )
        out = StringIO()
        console = Console(file=out, width=WIDTH, force_jupyter=False, markup=False, highlight=False)
        console.print(self._summary())
        console.print(table)
        if self.allocation is not None:
            console.print(f"\n{_spent(self.allocation)}")
        reasons = [norm.reason for norm in self.smoothed]
        if reasons:
            console.print(f"\n{reasons.count('')} of {len(reasons)} norms smoothed")
        for reason, count in Counter(filter(None, reasons)).items():
            console.print(f"  {count} left as they are: {reason}")
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()

    def _summary(self) -> str:
        count, parts = len(self.weights), f" in {self.blocks} parts" if self.blocks else ""
        return (
            f"{count} weight{'s' * (count != 1)} sparsified{parts} by {self.method}: "
            f"{self.kept:.1%} of values kept, {_megabytes(self.weights)} MB packed, "
            f"{self.seconds:.1f} s"
        )


def _spent(allocation: Allocation) -> str:
    """What the budget was, and what was made of it."""
    uniform = (
        f"{text} {option.loss:.4g} at {option.cost / allocation.dense:.3f}"
        for text, option in allocation.uniform.items()
    )
    return (
        f"{allocation.unit}: {allocation.cost / allocation.dense:.3f} of dense, at most "
        f"{allocation.limit / allocation.dense:.3f}; loss of the held batch, weight by weight, "
        f"{allocation.loss:.4g}; with one pattern for all: {', '.join(uniform) or 'none'}"
    )


def _shares(shares: Sequence[float]) -> str:
    """`50.0%`, or `8.1-31.9%`."""
    low, high = f"{100 * min(shares):.1f}", f"{100 * max(shares):.1f}"
    return f"{low}%" if low == high else f"{low}-{high}%"


def _megabytes(weights: Sequence[SparsifiedWeight]) -> str:
    sizes = (sum(w.dense_bytes for w in weights), sum(w.packed_bytes for w in weights))
    return " -> ".join(f"{size / 1e6:.2f}" for size in sizes)
