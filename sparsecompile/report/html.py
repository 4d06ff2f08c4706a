"""A report as one HTML page."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecompile.report.races import measured
from sparsecompile.report.rows import (
    HEADS,
    Row,
    findings_of,
    fold,
    libraries,
    lossy,
    masks,
    merged,
    outcome,
    reason,
    regions,
    summary,
)

if TYPE_CHECKING:
    from sparsecompile.report.facts import GraphReport, ReportFacts

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


def write_html(report: ReportFacts, path: str | Path) -> None:
    """Write the report as one HTML page that loads nothing.

    The file appears complete or not at all.
    """
    nodes = report.nodes
    rows = fold(nodes, lambda node: (outcome(node), node.findings))
    body = ["<h1>sparsecompile</h1>", f"<p>{escape(summary(report))}</p>"]
    if libraries(report):
        body.append(f"<p>{escape(libraries(report))}</p>")
    for title, linears in lossy(nodes):
        body.append(f"<p class=lossy>{escape(title)}<br>{escape(linears)}</p>")
    body += [f"<p class=lossy>{escape(message)}" for message in report.unmatched.values()]
    for weight, why in report.misfits.items():
        what = f"ran dense after all, with other weights: {weight} {why}"
        body.append(f"<p class=lossy>{escape(what)}")
    if rows:
        heads = "".join(f"<th>{escape(head)}" for head in ("linear", *HEADS, "why dense"))
        largest = max(row.dense_bytes for row in rows)
        lines = [f"<tr>{heads}", *(_row(row, largest, report) for row in rows)]
        body.append("\n".join(("<table>", *lines, "</table>")))
    body += [f"<p>region, one call for {escape(linears)}" for linears in regions(report)]
    for mask, picture in masks(nodes):
        body.append(f"<p>{escape(mask)}<pre>{escape(picture)}</pre>")
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


def _row(row: Row, largest: int, report: ReportFacts) -> str:
    node = row.node
    kernel = node.kernel
    facts = [("kernel", f"{kernel.spec}, {kernel.template} {kernel.schedule}")] if kernel else []
    facts += [("source", kernel.source)] if kernel and kernel.source else []
    facts += [("one kernel call for", linears) for linears in merged([row])]
    if node.expression:
        part = f"{node.part} of " if node.part is not None else ""
        facts.append(("part", part + node.expression))
    facts += [("lossy", node.lossy)] if node.lossy else []
    facts += [("chosen", node.chosen_by)] if node.chosen_by else []
    facts += [("serves", "; ".join(kernel.ranges))] if kernel and kernel.ranges else []
    facts += [(f"m={t.rows}", measured(t, report)) for t in node.trials]
    facts += [("not measured", f"{name}: {why}") for name, why in node.dropped]
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
