"""What was found ahead of time, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from sparsecompile.bench.aot.kernels import KernelAnalysis
    from sparsecompile.codegen.triton.inspection.analysis import Analysis

HEADS = (
    "kernel",
    "target",
    "",
    "m",
    "regs",
    "stack",
    "spills",
    "shared",
    "matrix",
    "loads of the loop",
    "blocks",
    "at most x dense",
)
NUMBERS = ("m", "regs", "stack", "spills", "shared")


def aot_table(found: Iterable[KernelAnalysis]) -> Table:
    """One line for each function; what it is of is said once.

    Loads are counted by the bits that a thread gets, `a` for asynchronous ones.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="right" if head in NUMBERS else "left", overflow="fold")
    shown: object = None
    first = 1
    for kernel in found:
        case, launch = kernel.case, kernel.launch
        is_new, shown = case != shown, case
        first = 1 if is_new else first
        last = launch.largest_m
        rows = f"{first}-" if last is None else f"{first}-{last}" if first < last else str(last)
        name = f"{str(case.spec).removeprefix('linear ')} {case.template.name}"
        which = (name, case.target.arch) if is_new else ("", "")
        cells = _cells(kernel.analysis)
        bounds = ", ".join(f"m={b.rows} {b.speedup:.2f}" for b in kernel.bounds)
        table.add_row(*which, launch.symbol, rows, *cells, bounds)
        first = (last or 0) + 1
    return table


def faults(found: Iterable[KernelAnalysis]) -> list[str]:
    """A line for each function that is not worth a measurement, with the reason."""
    return [
        f"{k.case.target.arch} {k.case.spec} {k.case.template.name} {k.launch.symbol} "
        f"({k.case.schedule}): {'; '.join(k.faults)}"
        for k in found
        if k.faults
    ]


def _cells(a: Analysis | None) -> Sequence[str]:
    if a is None:
        return (*[""] * 4, "does not compile", "", "")
    held = a.occupancy
    return (
        str(a.registers),
        str(a.stack),
        str(a.spills),
        f"{a.shared / 1024:.3g}K",
        ", ".join(f"{count} {name}" for name, count in a.matrix.items()),
        _loads(a),
        f"{held.blocks}, {held.share:.0%} of warps, {held.limiter}",
    )


def _loads(analysis: Analysis) -> str:
    """`12x128a 1x64a`, of the loop that loads most."""
    loads = max((loop.loads for loop in analysis.loops), key=len, default=analysis.loads)
    counts: Counter[tuple[int, bool]] = Counter()
    for load in loads:
        counts[load.bits, load.is_asynchronous] += load.count
    return " ".join(
        f"{count}x{bits or 'tile'}{'a' * is_asynchronous}"
        for (bits, is_asynchronous), count in sorted(counts.items(), reverse=True)
    )
