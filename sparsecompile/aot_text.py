"""What was found ahead of time, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from sparsecompile.codegen.triton.aot.analysis import Analysis
    from sparsecompile.codegen.triton.aot.kernels import KernelAnalysis

HEADS = (
    "kernel",
    "target",
    "m",
    "regs",
    "stack",
    "spills",
    "shared",
    "matrix",
    "loads of the loop",
    "occupancy",
    "at most x dense",
)


def aot_table(found: Iterable[KernelAnalysis]) -> Table:
    """One line for each function; what it is of is said once."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        right = head in ("m", "regs", "stack", "spills", "shared")
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    shown = ("", "")
    first = 1
    for kernel in found:
        case, launch = kernel.case, kernel.launch
        name = f"{str(case.spec).removeprefix('linear ')} {case.template.name}"
        head = (f"{name} {case.schedule}", case.target.arch)
        first = first if shown == head else 1
        last = launch.largest_m
        rows = f"{first}-" if last is None else f"{first}-{last}" if first < last else str(last)
        label = f"{name} {launch.symbol}"
        table.add_row(label, case.target.arch, rows, *_cells(kernel.analysis), _bounds(kernel))
        shown, first = head, (last or 0) + 1
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
        return ("does not compile", *[""] * 6)
    occupancy = a.occupancy
    return (
        str(a.registers),
        str(a.stack),
        str(a.spills),
        f"{a.shared / 1024:.3g}K",
        " ".join(f"{name} x{count}" for name, count in a.matrix.items()),
        _loads(a),
        f"{occupancy.blocks} blocks, {occupancy.share:.0%} ({occupancy.limiter})",
    )


def _loads(analysis: Analysis) -> str:
    """`8 x 128 async, 2 x 32`: bits a thread gets, of the loop that loads most."""
    loads = max((loop.loads for loop in analysis.loops), key=len, default=analysis.loads)
    counts: Counter[tuple[int, bool]] = Counter()
    for load in loads:
        counts[load.bits, load.is_asynchronous] += load.count
    return ", ".join(
        f"{count} x {bits or 'tile'}{' async' if is_asynchronous else ''}"
        for (bits, is_asynchronous), count in sorted(counts.items(), reverse=True)
    )


def _bounds(kernel: KernelAnalysis) -> str:
    return ", ".join(f"m={b.rows} {b.speedup:.2f}" for b in kernel.bounds)
