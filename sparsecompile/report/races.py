"""What was measured to choose kernels, as lines of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsecompile.kernels.trial import short_name
from sparsecompile.report.rows import DTYPES, one_line

if TYPE_CHECKING:
    from sparsecompile.kernels.trial import Trial
    from sparsecompile.report.facts import NodeReport, ReportFacts

BANDWIDTH_NOISE = 0.05
"""By how much a kernel may read faster than the machine was measured to."""


def choices(report: ReportFacts) -> list[tuple[str, list[str]]]:
    """What choices of kernels rest on, and a line for every problem and m of it.

    Linears of one problem, such as a model's layers, share their lines.
    """
    reasons = dict.fromkeys(n.chosen_by for n in report.nodes if n.chosen_by not in ("", n.reason))
    return [(f"chosen: {_title(why, report)}", _lines(why, report)) for why in reasons]


def races(report: ReportFacts) -> list[tuple[str, list[str]]]:
    """Every problem and m of it, and a line for each candidate that was measured.

    Candidates have their short names, unless others have the same.
    """
    found: dict[str, list[str]] = {}
    for node in report.nodes:
        for m in dict.fromkeys(t.rows for t in node.trials):
            trials = [t for t in node.trials if t.rows == m]
            count = Counter(t.label for t in trials)
            names = [t.label if count[t.label] == 1 else t.candidate for t in trials]
            lines = [measured(t, report, name) for t, name in zip(trials, names, strict=True)]
            found.setdefault(f"{_problem(node)} m={m}", lines)
    return list(found.items())


def _title(why: str, report: ReportFacts) -> str:
    trials = [t for node in report.nodes if node.chosen_by == why for t in node.trials]
    if not trials or report.read_bandwidth is None:
        return one_line(why)
    reads = f"this machine reads {report.read_bandwidth / 1e9:.3g} GB/s"
    if max((report.share(t) or 0 for t in trials), default=0) > 1 + BANDWIDTH_NOISE:
        reads += " or more: it was busy when that was measured, `sparsecompile machine --again`"
    return f"{one_line(why)}; {reads}"


def _lines(why: str, report: ReportFacts) -> list[str]:
    lines: dict[tuple[str, int], str] = {}
    for node in report.nodes:
        rows = dict.fromkeys(t.rows for t in node.trials if t.chosen)
        for m in rows if node.chosen_by == why else ():
            trials = [t for t in node.trials if t.rows == m]
            lines.setdefault((node.problem, m), f"{_problem(node)} m={m}: {_race(trials, report)}")
        if node.dropped and node.chosen_by == why:
            lines.setdefault((node.problem, -1), f"{_problem(node)} {left_out(node)}")
    return list(lines.values())


def left_out(node: NodeReport) -> str:
    """`not measured: 3, such as tiles few, linear on sm_90: 24 spills`."""
    (name, reason), count = node.dropped[0], len(node.dropped)
    what = one_line(f"{short_name(name)}, {reason}")
    return f"not measured: {what}" if count == 1 else f"not measured: {count}, such as {what}"


def _problem(node: NodeReport) -> str:
    """`n_m[2:4] bf16 1536x576`."""
    words = (DTYPES.get(word, word.removesuffix("/float")) for word in node.problem.split())
    return one_line(" ".join(words))


def _race(trials: Sequence[Trial], report: ReportFacts) -> str:
    """`strips decode 0.043 ms, 22 GB/s (81%), dense 0.101 ms, 2.3x`: the chosen one and a rival.

    The rival of the baseline is the fastest of the others. The last number says how much faster
    than the baseline a kernel is.
    """
    chosen = next(t for t in trials if t.chosen)
    dense = next((t for t in trials if t.is_baseline), None)
    others = sorted((t for t in trials if not t.is_baseline), key=lambda t: t.seconds)
    rival = next(iter(others), None) if chosen is dense else dense
    packed = rival if chosen is dense else chosen
    parts = [f"{one_line(chosen.label)} {_ms(chosen)}"]
    if chosen.cold and chosen is not dense:
        share = report.share(chosen)
        parts.append(_speed(chosen) + (f" ({share:.0%})" if share is not None else ""))
    if rival is not None:
        parts.append(f"{one_line(rival.label)} {_ms(rival)}")
    if dense is not None and packed is not None:
        lead = f"{dense.seconds / packed.seconds:.2g}x"
        if chosen is dense and packed.seconds < dense.seconds:
            is_doubtful = packed.seconds + packed.noise >= dense.seconds
            lead += " within the noise" if is_doubtful else " with another layout"
        parts.append(lead)
    return ", ".join(parts)


def measured(trial: Trial, report: ReportFacts, name: str = "") -> str:
    """All of one trial: name, the full one if none is given, time, bytes moved and how fast."""
    share = report.share(trial)
    reads = (report.read_bandwidth or 0) / 1e9
    parts = [_ms(trial), f"{trial.nbytes / 1e6:.3g} MB", _speed(trial)]
    parts += [f"{share:.0%} of the {reads:.3g} GB/s that can be read"] if share is not None else []
    parts += [f"{trial.peak:.0%} of the peak rate"] if trial.peak is not None else []
    chosen = " <- chosen" if trial.chosen else ""
    return f"{one_line(name or trial.candidate)}: {', '.join(parts)}{chosen}"


def _ms(trial: Trial) -> str:
    return f"{trial.seconds * 1e3:.3g} ms"


def _speed(trial: Trial) -> str:
    return f"{trial.bandwidth / 1e9:.2g} GB/s"
