"""Rows of a report: linears with one outcome whose names differ only in numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsecompile.detection.survey import Finding
    from sparsecompile.report.facts import NodeReport, ReportFacts

HEADS = ("count", "n x k", "dtype", "zeros", "format", "kernel", "dense -> packed")
"""Heads of `Row.cells`."""

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
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
            DTYPES.get(node.dtype, one_line(node.dtype)),
            _shares([n.zeros for n in self.nodes if n.zeros is not None]),
            one_line(node.format or node.mask).removesuffix("/float"),
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
    done = (node.part, node.format, node.mask, template, node.epilogue, merged, node.lossy)
    return (node.shape, node.dtype, node.zeros is None, done, reason(node))


def expressions(nodes: Sequence[NodeReport]) -> Iterator[tuple[str, str]]:
    """What weights are that are several, in one way or the other, and their names."""
    for text in dict.fromkeys(node.expression for node in nodes if node.expression):
        first = [node for node in nodes if node.expression == text and not node.part]
        is_one = any(node.part is None for node in first)
        calls = "one kernel call for" if is_one else "a kernel call for each part of"
        yield f"{one_line(text)}, {calls}", names(fold(first, lambda node: None), ", ")


def regions(report: ReportFacts) -> list[str]:
    """Regions by the modules of their linears, with how often there is one of these."""
    found = Counter(
        ", ".join(weight.removesuffix(".weight").rpartition(".")[2] for weight in weights)
        for graph in report.graph_reports
        for weights in graph.regions
    )
    return [f"{count} x {linears}" for linears, count in found.items()]


def merged(rows: Iterable[Row]) -> list[str]:
    """Names of linears that share one kernel call."""
    calls: dict[frozenset[str], str] = {}
    for row in rows:
        if row.node.merged_with:
            members = [row]
            for others in zip(*(node.merged_with for node in row.nodes), strict=True):
                renamed = map(_rename, row.nodes, others)
                members += fold(renamed, lambda node: None)
            calls.setdefault(frozenset(map(str, members)), names(members, " + "))
    return list(calls.values())


def _rename(node: NodeReport, weight: str) -> NodeReport:
    return replace(node, weight=weight)


def masks(nodes: Iterable[NodeReport]) -> Iterator[tuple[str, str]]:
    """Masks of compiled attention, each with its share of kept places, and a picture."""
    found = {(node.mask, node.kept): node.picture for node in nodes if node.packed and node.picture}
    for (mask, kept), picture in found.items():
        share = f"{kept or 0:.0%} of the keys count"
        yield f"{one_line(mask)}: {share}; queries from top to bottom", picture


def lossy(nodes: Sequence[NodeReport]) -> Iterator[tuple[str, str]]:
    """What changed weights on request and how many of them, and their names."""
    for what in dict.fromkeys(node.lossy for node in nodes if node.lossy):
        changed = list({node.weight: node for node in nodes if node.lossy == what}.values())
        count = len(changed)
        kind = "weight" if changed[0].has_weight else changed[0].reader
        errors = _shares([node.error for node in changed if node.error is not None])
        off = f", relative error {errors}," if errors else ""
        title = (
            f"lossy: {one_line(what)}{off} on {count} {kind}{'s' * (count != 1)}: "
            "the compiled model computes something else than the model"
        )
        yield title, names(fold(changed, lambda node: None), ", ")


def summary(report: ReportFacts) -> str:
    """One line: how much was packed."""
    graphs = f"{report.graphs} graph{'s' * (report.graphs != 1)}"
    dense, packed = report.dense_bytes, report.packed_bytes
    # One that is split counts once.
    nodes = [node for node in report.linears if not node.part]
    others = sum(bool(n.reader) and n.has_weight and not n.packed for n in report.nodes)
    if not report.graphs:
        parts = ["no graph was compiled" + " yet" * (not others)]
    elif not nodes:
        parts = [f"no linear was found in {graphs}"]
    else:
        ratio = f" ({dense / packed:.2f}x smaller)" if 0 < packed < dense else ""
        count = f"{sum(node.packed for node in nodes)} of {len(nodes)} linears packed"
        parts = [count, _size(dense, dense, packed) + ratio, graphs]
    bare = [node for node in report.nodes if not node.has_weight]
    for reader in dict.fromkeys(node.reader for node in bare):
        alike = [node for node in bare if node.reader == reader]
        parts.append(f"{sum(n.packed for n in alike)} of {len(alike)} {reader} calls compiled")
    if others:
        parts.append(f"{others} weight{'s' * (others != 1)} read by no linear")
    return " | ".join(filter(None, (*parts, one_line(report.target))))


def libraries(report: ReportFacts) -> str:
    """`kernels: 1 built now, 6 from the cache folder /opt/cache`; empty where there are none."""
    folders = Counter(report.origins.values())
    parts = (
        f"{count} {f'from the cache folder {folder}' if folder else 'built now'}"
        for folder, count in sorted(folders.items())
    )
    return f"kernels: {', '.join(parts)}" if folders else ""


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


def _shares(shares: Sequence[float]) -> str:
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
    numbers = " -> ".join(_three_digits(size / scale) for size in sizes)
    return f"{numbers} {unit}" if any(sizes) else ""


def _three_digits(number: float) -> str:
    if number >= 100 or number == int(number):
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
