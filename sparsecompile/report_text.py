"""A report as text in 100 columns, and as one HTML page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sparsecompile.report import GraphReport, NodeReport, Report
    from sparsecompile.survey import Finding

HEADS = ("count", "n x k", "dtype", "zeros", "format", "kernel", "dense -> packed")
"""Heads of `Row.cells`."""

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True)
class Row:
    """Linears with one outcome whose names differ only in numbers.

    Attributes:
        texts: their names without the numbers.
        numbers: between the texts; the row stands for every combination of them.
        nodes: the linears.
        outcome: what they have in common.
    """

    texts: tuple[str, ...]
    numbers: tuple[tuple[int, ...], ...]
    nodes: tuple[NodeReport, ...]
    outcome: Hashable

    def __str__(self) -> str:
        """`model.layers.{0-29}.mlp.up_proj`."""
        ranges = (*map(_ranges, self.numbers), "")
        name = "".join(text + number for text, number in zip(self.texts, ranges, strict=True))
        return one_line(name).removesuffix(".weight")

    @property
    def node(self) -> NodeReport:
        """The first of its linears."""
        return self.nodes[0]

    @property
    def dense_bytes(self) -> int:
        """Bytes of its weights, dense."""
        return sum(node.dense_bytes for node in self.nodes)

    def cells(self, largest: int) -> tuple[str, ...]:
        """What stands below `HEADS`, sizes in the unit of the largest."""
        node = self.node
        packed = [sum(n.packed_bytes for n in self.nodes)] if node.packed else []
        steps = "".join(f" +{step}" for step in node.epilogue)
        return (
            str(len(self.nodes)),
            " x ".join(map(str, node.shape or ())),
            _DTYPES.get(node.dtype, one_line(node.dtype)),
            _zeros([n.zeros for n in self.nodes if n.zeros is not None]),
            one_line(node.format or "").removesuffix("/float"),
            one_line(node.kernel.template + steps) if node.kernel else "",
            _size(largest, self.dense_bytes, *packed),
        )


def fold(nodes: Iterable[NodeReport], outcome: Callable[[NodeReport], Hashable]) -> list[Row]:
    """Rows of linears with one outcome, in order of appearance."""
    rows = [Row(*_cut(node.weight), (node,), outcome(node)) for node in nodes]
    for i in reversed(range(max((len(row.numbers) for row in rows), default=0))):
        alike: dict[Hashable, list[Row]] = {}
        for row in rows:
            key = (row.texts, row.numbers[:i], row.numbers[i + 1 :], row.outcome)
            alike.setdefault(key, []).append(row)
        rows = [_join(group) for group in alike.values()]
    return rows


def _join(rows: Sequence[Row]) -> Row:
    places = zip(*(row.numbers for row in rows), strict=True)
    numbers = tuple(tuple(sorted(set().union(*place))) for place in places)
    return replace(rows[0], numbers=numbers, nodes=tuple(n for row in rows for n in row.nodes))


def _cut(name: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Texts and numbers of a name; a number with a leading zero is text."""
    parts = re.split(r"(?<![0-9])(0|[1-9][0-9]{0,8})(?![0-9])", name)
    return tuple(parts[::2]), tuple((int(part),) for part in parts[1::2])


def _ranges(numbers: Sequence[int]) -> str:
    """`{0-3,7}`, or `7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    text = ",".join("-".join(map(str, run)) for run in runs)
    return f"{{{text}}}" if len(numbers) > 1 else text


def places(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by place in the model: their names up to the last number, else up to the last dot."""
    by_place: dict[str, list[Row]] = {}
    for row in rows:
        parts = str(row).split(".") if "(" not in str(row) else [str(row)]
        ends = [i for i, part in enumerate(parts[:-1], 1) if re.fullmatch(r"\{.*\}|[0-9]+", part)]
        by_place.setdefault(".".join(parts[: ends[-1] if ends else -1]), []).append(row)
    return by_place


def names(rows: Iterable[Row], separator: str) -> str:
    """`model.layers.{0-29}: mlp.up_proj, mlp.down_proj; lm_head`."""
    texts = []
    for place, members in places(rows).items():
        shared = f"{place}." if place and len(members) > 1 else ""
        rest = separator.join(str(row)[len(shared) :] for row in members)
        texts.append(f"{place}: {rest}" if shared else rest)
    return "; ".join(texts)


def one_line(text: str) -> str:
    """The text on one line, with escapes for what cannot be printed."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def reason(node: NodeReport) -> str:
    """Why it was left dense, without its own name, so that layers share their reasons."""
    text = one_line(node.reason)
    for name in re.findall(r"\w+(?:\.\w+)+", node.weight):
        if name in text:
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?!\.?\w)", "the weight", text)
    return text


def outcome(node: NodeReport) -> Hashable:
    """What linears must have in common to share a row."""
    template = node.kernel.template if node.kernel else None
    merged = tuple(_cut(name)[0] for name in node.merged_with)
    done = (node.format, template, node.epilogue, merged, node.lossy)
    return (node.shape, node.dtype, node.zeros is None, done, reason(node))


def merged(rows: Iterable[Row]) -> Iterable[str]:
    """Names of linears that share one kernel call."""
    calls: dict[frozenset[str], str] = {}
    for row in rows:
        if row.node.merged_with:
            members = [row]
            for others in zip(*(node.merged_with for node in row.nodes), strict=True):
                renamed = map(_rename, row.nodes, others)
                members += fold(renamed, lambda node: None)
            calls.setdefault(frozenset(map(str, members)), names(members, " + "))
    return calls.values()


def _rename(node: NodeReport, weight: str) -> NodeReport:
    return replace(node, weight=weight)


def lossy(nodes: Sequence[NodeReport]) -> Iterator[tuple[str, str]]:
    """What changed weights on request and how many of them, and their names."""
    for what in dict.fromkeys(node.lossy for node in nodes if node.lossy):
        changed = [node for node in nodes if node.lossy == what]
        count = len({node.weight for node in changed})
        title = (
            f"lossy: {one_line(what)} on {count} weight{'s' * (count != 1)}: "
            "the compiled model computes something else than the model"
        )
        yield title, names(fold(changed, lambda node: None), ", ")


def summary(report: Report) -> str:
    """One line: how much was packed."""
    graphs = f"{report.graphs} graph{'s' * (report.graphs != 1)}"
    nodes, dense, packed = report.nodes, report.dense_bytes, report.packed_bytes
    if not report.graphs:
        parts = ["no graph was compiled yet"]
    elif not nodes:
        parts = [f"no linear was found in {graphs}"]
    else:
        ratio = f" ({dense / packed:.2f}x smaller)" if 0 < packed < dense else ""
        count = f"{sum(node.packed for node in nodes)} of {len(nodes)} linears packed"
        parts = [count, _size(dense, dense, packed) + ratio, graphs]
    return " | ".join(filter(None, (*parts, one_line(report.target))))


def findings_of(node: NodeReport) -> list[tuple[str, str]]:
    """Formats and what they found in the weight: those that fit by size, then the others."""
    ordered = sorted(node.findings, key=lambda f: (f.nbytes is None, f.nbytes or 0))
    found = [(one_line(f.format), _found(f, node)) for f in ordered]
    if len(found) > 1 and len({text for _, text in found}) == 1:
        return [(f"all {len(found)} formats", found[0][1])]
    return found


def _found(finding: Finding, node: NodeReport) -> str:
    if finding.nbytes is None:
        return one_line(finding.reason)
    share = f", {finding.nbytes / node.dense_bytes:.1%} of dense" if node.dense_bytes else ""
    chosen = " <- chosen" if finding.format == node.format else ""
    return f"{finding.nbytes:,} bytes{share}{chosen}"


def _zeros(shares: Sequence[float]) -> str:
    """`50.0%`, or `49.8%-50.3%`."""
    ends = (min(shares), max(shares)) if shares else ()
    return "-".join(dict.fromkeys(map(_percent, ends)))


def _percent(share: float) -> str:
    """Rounded, but all and nothing only where that is exact."""
    text = f"{share:.1%}"
    if text == "0.0%" and share > 0:
        return "<0.1%"
    return ">99.9%" if text == "100.0%" and share < 1 else text


def _size(largest: int, *sizes: int) -> str:
    """`19.9 -> 11.2 MB`; empty when there is nothing."""
    unit, scale = next((unit for unit in _UNITS if largest >= unit[1]), ("B", 1))
    numbers = [
        str(size) if scale == 1 else f"{size / scale:.{1 if size >= 10 * scale else 2}f}"
        for size in sizes
    ]
    return f"{' -> '.join(numbers)} {unit}" if any(sizes) else ""


WIDTH = 100
"""Columns of the text."""

_NAME = 24
"""Columns that a name has at least; formats and kernels wrap before it gets fewer."""
_LEFT = tuple(map(HEADS.index, ("dtype", "format", "kernel")))
_WRAPPED = tuple(map(HEADS.index, ("format", "kernel")))
_NO_ZEROS = 'options={"prune": "2:4"} makes zeros, and changes what the model computes.'


def render(report: Report, *, findings: bool = False, color: bool = False) -> str:
    """The report in at most 100 columns.

    Args:
        report: the report.
        findings: also what every format found in every weight.
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
    for linears in merged(packed):
        _say(console, f"\none kernel call for {linears}")
    for why, group in sorted(dense.items(), key=lambda item: -_count(item[1])):
        what = "left dense" if packed else "nothing was packed"
        _say(console, f"\n{what}, {_count(group)} of {len(nodes)}: {why}", "bold yellow")
        layout.print(console, group)
    if nodes and all(node.zeros == 0 for node in nodes):
        _say(console, f"\n{_NO_ZEROS}")
    for title, linears in lossy(nodes):
        _say(console, f"\n{title}", "bold red")
        _say(console, linears, indent=2)
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
        while self._room < _NAME:
            self._widths[max(self._widths, key=self._can_wrap)] -= 1
        labels = [label for section in sections for label, _ in self._lines(section)]
        self._label = min(self._room, max(map(_columns, ("linear", *labels))))
        self._headed = False

    @property
    def _room(self) -> int:
        """Columns left for names."""
        return WIDTH - sum(width + 2 for width in self._widths.values())

    def _can_wrap(self, column: int) -> tuple[bool, int]:
        width = self._widths[column]
        return (column in _WRAPPED and width > 9, width)

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
        texts = (_shorten(label, self._label), *(cells[i] for i in self._widths))
        grid.add_row(*(Text(text, style) for text in texts))
        return grid


def _columns(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


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


_PAGE = """<!DOCTYPE html>
<html lang=en>
<meta charset=utf-8>
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline'">
<meta name=viewport content="width=device-width">
<title>sparsecompile report</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 90rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: .5rem 0 }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }}
th {{ border-bottom: 2px solid; white-space: nowrap }}
td {{ border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums }}
tr.dense > td:last-child, .lossy {{ color: #b35900 }}
summary {{ cursor: pointer }}
pre {{ background: #8881; overflow-x: auto; padding: 1rem }}
</style>
{body}
</html>
"""


def write_html(report: Report, path: str | Path) -> None:
    """Write the report as one HTML page that loads nothing.

    The file appears complete or not at all.
    """
    nodes = report.nodes
    rows = fold(nodes, lambda node: (outcome(node), node.findings))
    body = ["<h1>sparsecompile</h1>", f"<p>{escape(summary(report))}</p>"]
    for title, linears in lossy(nodes):
        body.append(f"<p class=lossy>{escape(title)}<br>{escape(linears)}</p>")
    if rows:
        heads = "".join(f"<th>{escape(head)}" for head in ("linear", *HEADS, "why dense"))
        largest = max(row.dense_bytes for row in rows)
        lines = [f"<tr>{heads}", *(_row(row, largest) for row in rows)]
        body.append("\n".join(("<table>", *lines, "</table>")))
    for i, graph in enumerate(report.graph_reports):
        for what, text in (("before", graph.before), ("after", graph.after), _passes(graph)):
            body.append(_code(f"graph {i}, {what}", text))
    body += [_code(f"source {name}", text) for name, text in dict(report.sources).items()]
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        page = _PAGE.format(body="\n".join(body))
        draft.write_text(page, encoding="utf-8", errors="backslashreplace")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _row(row: Row, largest: int) -> str:
    node = row.node
    kernel = node.kernel
    facts = [("kernel", f"{kernel.spec}, {kernel.template} {kernel.schedule}")] if kernel else []
    facts += [("source", kernel.source)] if kernel else []
    facts += [("one kernel call for", linears) for linears in merged([row])]
    facts += [("lossy", node.lossy)] if node.lossy else []
    facts += findings_of(node)
    inner = "".join(f"<tr><td>{escape(what)}<td>{escape(text)}" for what, text in facts)
    name = f"<details><summary>{escape(str(row))}</summary><table>{inner}</table></details>"
    cells = "".join(f"<td>{escape(cell)}" for cell in (*row.cells(largest), reason(node)))
    return f"<tr class={'packed' if node.packed else 'dense'}><td>{name}{cells}"


def _passes(graph: GraphReport) -> tuple[str, str]:
    lines = (f"{r.pass_name} {r.node}: {r.reason or 'done'}" for r in graph.rewrites)
    return "passes", "\n".join(lines)


def _code(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
