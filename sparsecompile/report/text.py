"""A report as text in 100 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from sparsecompile.report.races import choices, races
from sparsecompile.report.rows import (
    HEADS,
    Row,
    expressions,
    findings_of,
    fold,
    libraries,
    lossy,
    masks,
    merged,
    one_line,
    outcome,
    places,
    reason,
    regions,
    summary,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sparsecompile.report.facts import ReportFacts

WIDTH = 100
"""Columns of the text."""

_NAME, _SHORT_NAME = 24, 12
"""Columns that a long name has at least before formats and kernels wrap between their parts, and
before they wrap anywhere."""
_LEFT = tuple(map(HEADS.index, ("dtype", "format", "kernel")))
_WRAPPED = tuple(map(HEADS.index, ("format", "kernel")))
_NO_ZEROS = 'options={"prune": "2:4"} makes zeros, and changes what the model computes.'


def render(
    report: ReportFacts, *, findings: bool = False, trials: bool = False, color: bool = False
) -> str:
    """The report in at most 100 columns.

    Args:
        report: the report.
        findings: also what every format found in every weight.
        trials: also everything that was measured.
        color: with the codes of terminal colours.
    """
    from rich.console import Console

    out = StringIO()
    console = Console(
        file=out,
        width=WIDTH,
        force_terminal=color,
        force_jupyter=False,
        color_system="standard" if color else None,
    )
    nodes = report.nodes
    rows = fold(nodes, outcome)
    packed = [row for row in rows if row.node.packed]
    dense: dict[str, list[Row]] = {}
    for row in rows:
        if not row.node.packed:
            dense.setdefault(reason(row.node), []).append(row)
    layout = _Layout((packed, *dense.values()))
    _say(console, summary(report), "bold")
    if packed:
        _say(console, "")
        layout.print(console, packed)
    for text, split in expressions(nodes):
        _say(console, f"\n{text}")
        _say(console, split, indent=2)
    calls = merged(packed)
    if calls:
        _say(console, "\nmerged, one kernel call for")
    for linears in calls:
        _say(console, linears, indent=2)
    joined = regions(report)
    if joined:
        _say(console, "\nregions, one call for several linears")
    for linears in joined:
        _say(console, linears, indent=2)
    for mask, picture in masks(nodes):
        _say(console, f"\n{mask}")
        _say(console, picture, indent=2)
    for title, lines in choices(report):
        _say(console, f"\n{title}")
        for line in lines:
            _say(console, line, indent=2)
    if libraries(report):
        _say(console, f"\n{libraries(report)}")
    for why, group in sorted(dense.items(), key=lambda item: -_count(item[1])):
        what = "left dense" if packed else "nothing was packed"
        _say(console, f"\n{what}, {_count(group)} of {len(nodes)}: {why}", "bold yellow")
        layout.print(console, group)
    for why in dict.fromkeys(reason(row.node) for row in packed if row.node.reason):
        _say(console, f"\n{why}", "bold yellow")
        layout.print(console, [row for row in packed if reason(row.node) == why])
    for message in report.unmatched.values():
        _say(console, f"\n{one_line(message)}", "bold yellow")
    for weight, why in report.misfits.items():
        _say(console, f"\nran dense after all, with other weights: {weight} {why}", "bold yellow")
    weights = [node for node in nodes if node.has_weight]
    if weights and not any(n.packed or n.zeros != 0 for n in weights):
        _say(console, f"\n{_NO_ZEROS}")
    for title, linears in lossy(nodes):
        _say(console, f"\n{title}", "bold red")
        _say(console, linears, indent=2)
    for race, lines in races(report) if trials else ():
        _say(console, f"\n{race}", "bold")
        for line in lines:
            _say(console, line, indent=2)
    for row in fold(nodes, lambda node: (outcome(node), node.findings)) if findings else ():
        _print_findings(console, row)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _say(console: Console, text: str, style: str = "", *, indent: int = 0) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Padding(Text(text, style, overflow="fold"), (0, 0, 0, indent)))


def _count(rows: Sequence[Row]) -> int:
    return sum(len(row.nodes) for row in rows)


class _Layout:
    """Widths of the columns, the same in all sections; columns that say nothing are left out."""

    def __init__(self, sections: Sequence[Sequence[Row]]) -> None:
        rows = [row for section in sections for row in section]
        self._largest = max((row.dense_bytes for row in rows), default=0)
        cells = [row.cells(self._largest) for row in rows]
        self._widths = {
            i: max(_columns(cell[i]) for cell in (HEADS, *cells))
            for i in range(len(HEADS))
            if any(cell[i] for cell in cells)
        }
        parts = {
            i: max((_columns(part) for cell in cells for part in _parts(cell[i])), default=0)
            for i in _WRAPPED
        }
        name = max((_columns(str(row)) for row in rows), default=0)
        self._narrow(min(_NAME, name), parts)
        self._narrow(min(_SHORT_NAME, name), dict.fromkeys(_WRAPPED, 9))
        self._narrow(min(_SHORT_NAME, name), dict.fromkeys(self._widths, 0))
        labels = [label for section in sections for label, _ in self._lines(section)]
        self._label = min(self._room, max(map(_columns, ("linear", *labels))))
        self._headed = False

    @property
    def _room(self) -> int:
        """Columns left for names."""
        return WIDTH - sum(width + 2 for width in self._widths.values())

    def _narrow(self, name: int, least: Mapping[int, int]) -> None:
        """Make the widest columns narrower until a name has room, each down to its least width."""
        while self._room < name:
            wide = [i for i in self._widths if i in least and self._widths[i] > least[i]]
            if not wide:
                break
            self._widths[max(wide, key=self._widths.__getitem__)] -= 1

    def _lines(self, rows: Sequence[Row]) -> Iterator[tuple[str, Row | None]]:
        """Names and their rows; names that share a place stand below it, without it."""
        for place, members in places(rows).items():
            if place and (len(members) > 1 or _columns(str(members[0])) > self._room):
                yield place, None
                yield from ((f"  {str(row)[len(place) + 1 :]}", row) for row in members)
            else:
                yield from ((str(row), row) for row in members)

    def print(self, console: Console, rows: Sequence[Row]) -> None:
        """Print one section; the first gets the heads of the columns."""
        if not self._headed:
            self._headed = True
            console.print(self._line("linear", HEADS, "underline"))
        for label, row in self._lines(rows):
            if row is None:
                _say(console, label)
            else:
                console.print(self._line(label, row.cells(self._largest)))

    def _line(self, label: str, cells: Sequence[str], style: str = "") -> Table:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        grid.add_column(width=self._label)
        for i, width in self._widths.items():
            grid.add_column(width=width, justify="left" if i in _LEFT else "right", overflow="fold")
        wrapped = (_wrap(cells[i], width) for i, width in self._widths.items())
        texts = (_shorten(label, self._label), *wrapped)
        grid.add_row(*(Text(text, style) for text in texts))
        return grid


def _columns(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _parts(text: str) -> list[str]:
    """Where it may be wrapped: `dense/`, `int4[group=32,`, `minima]`."""
    return re.findall(r"[^/, ]+[/,]?|[/, ]", text)


def _wrap(text: str, columns: int) -> str:
    """The text with line breaks between its parts, where it is too long."""
    lines = [""]
    for part in _parts(text):
        if lines[-1] and _columns(lines[-1] + part.rstrip()) > columns:
            lines.append("")
        lines[-1] += part if lines[-1] or not part.isspace() else ""
    return "\n".join(line.rstrip() for line in lines)


def _shorten(text: str, columns: int) -> str:
    """The text, its middle replaced by an ellipsis where it is too long."""
    short, cut = text, 1
    while _columns(short) > columns:
        cut += 1
        middle = (len(text) - cut) // 2
        short = f"{text[:middle]}…{text[middle + cut :]}"
    return short


def _print_findings(console: Console, row: Row) -> None:
    from rich.table import Table
    from rich.text import Text

    node = row.node
    shape = f"{' x '.join(map(str, node.shape or ()))} {one_line(node.dtype)}".strip()
    size = f"{shape}, {node.dense_bytes:,} bytes dense" if node.shape else reason(node)
    times = f"{len(row.nodes)} of " if len(row.nodes) > 1 else ""
    _say(console, f"\n{row}: {times}{size}", "bold")
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(max_width=WIDTH // 2, overflow="fold")
    grid.add_column(overflow="fold")
    for formats, text in findings_of(node):
        grid.add_row(Text(f"  {formats}"), Text(text))
    console.print(grid)
