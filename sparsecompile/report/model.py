"""Report: what happened to every linear, and why, as people read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsecompile.report.facts import ReportFacts
from sparsecompile.report.html import write_html
from sparsecompile.report.text import render


@dataclass(frozen=True)
class Report(ReportFacts):
    """Everything one Compiler has compiled so far; see `ReportFacts`."""

    def to_html(self, path: str | Path) -> None:
        """Write the report as one HTML page that needs nothing else.

        Args:
            path: the file.
        """
        write_html(self, path)

    def __str__(self) -> str:
        """A table that fits 100 columns."""
        return render(self)
