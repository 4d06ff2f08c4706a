"""The limits of a machine as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from sparsecompile.codegen.cpp.machine import Machine


def machine_table(machine: Machine, huge_pages: str, memory_nodes: int) -> Table:
    """One line for each limit, with its unit and what reached it.

    Args:
        machine: the limits.
        huge_pages: when the system gives them.
        memory_nodes: how many parts memory has.
    """
    from rich.table import Table

    many = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    table = Table(title=f"{machine.cpu}, {many}", title_justify="left", box=None, pad_edge=False)
    table.add_column("limit")
    table.add_column("", justify="right")
    table.add_column("by")
    rates = (
        ("float32", machine.float32_rate, "GFLOP/s", machine.float32_instruction),
        ("bfloat16", machine.bfloat16_rate, "GFLOP/s", machine.bfloat16_instruction),
        ("int8", machine.int8_rate, "GOP/s", machine.int8_instruction),
    )
    table.add_row("read bandwidth", f"{machine.read_bandwidth / 1e9:.1f} GB/s", many)
    table.add_row("read bandwidth", f"{machine.read_bandwidth_one / 1e9:.1f} GB/s", "1 thread")
    for name, rate, unit, instruction in rates:
        table.add_row(f"{name} multiply-add", f"{rate / 1e9:,.0f} {unit}", instruction)
    table.add_row("last-level cache", f"{machine.llc_bytes / 2**20:g} MiB")
    table.add_row("L2 cache", f"{machine.l2_bytes / 2**20:g} MiB", "a core")
    table.add_row("memory nodes", f"{memory_nodes}")
    table.add_row("huge pages", huge_pages)
    return table
