"""Rows of a benchmark as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from math import floor, isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecompile.bench.environment import Environment
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.gpu import GPU

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
"""Version of the JSON; rises when a field changes its meaning or goes."""


def results_json(command: str, rows: Sequence[Environment], machine: Machine | GPU) -> str:
    """An object with `schema`, `command`, `machine` (its fields) and `rows`."""
    facts = {
        "schema": SCHEMA,
        "command": command,
        "machine": asdict(machine),
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(facts, indent=2) + "\n"


def results_csv(rows: Sequence[Environment]) -> str:
    """A head and a line for each row, with the same fields as in the JSON."""
    out = StringIO()
    writer = csv.DictWriter(out, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()


def check_writable(*paths: Path | None) -> None:
    """Return if files can be written, which is better known before an hour of measuring.

    Raises:
        SparseCompileError: a folder is missing, or a path is a folder.
    """
    for path in paths:
        if path is not None and path.is_dir():
            raise SparseCompileError(f"cannot write {path}: it is a folder")
        if path is not None and not path.absolute().parent.is_dir():
            raise SparseCompileError(f"cannot write {path}: there is no folder {path.parent}")


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        SparseCompileError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SparseCompileError(f"cannot write {path}: {error.strerror}") from error


def results_table(
    title: str, rows: Sequence[Environment], columns: Mapping[str, str], *, group: str
) -> Table:
    """Some fields of the rows.

    Args:
        title: above the table.
        rows: a line each.
        columns: field -> head; numbers are right-aligned, with three significant digits.
        group: field; between two rows that differ in it there is a line, and it is written once.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, head in columns.items():
        number = isinstance(getattr(rows[0], name), (int, float))
        # The last column may be a sentence, such as a refusal.
        may_wrap = name == list(columns)[-1]
        table.add_column(
            head, justify="right" if number else "left", no_wrap=not may_wrap, overflow="fold"
        )
    last: Any = None
    for row in rows:
        here = getattr(row, group)
        if last is not None and here != last:
            table.add_section()
        values = {name: getattr(row, name) for name in columns}
        if here == last and group in values:
            values[group] = ""
        table.add_row(*map(_cell, values.values()))
        last = here
    return table


def show(
    command: str,
    title: str,
    rows: Sequence[Environment],
    machine: Machine | GPU,
    columns: Mapping[str, str],
    *,
    group: str,
    json_path: Path | None,
    csv_path: Path | None,
) -> None:
    """Write the files that were asked for, and print the table; see `results_table`.

    Raises:
        SparseCompileError: a file cannot be written.
    """
    from rich.console import Console

    if json_path is not None:
        write(json_path, results_json(command, rows, machine))
    if csv_path is not None:
        write(csv_path, results_csv(rows))
    out: Any = Console(highlight=False, markup=False)
    out = out if out.is_terminal else Console(highlight=False, markup=False, width=150)
    out.print(results_table(title, rows, columns, group=group))


def _cell(value: object) -> str:
    """Three significant digits, without an exponent."""
    if not isinstance(value, float):
        return str(value)
    if not value or not isfinite(value):
        return f"{value:g}"
    return f"{value:.{min(9, max(0, 2 - floor(log10(abs(value)))))}f}"
