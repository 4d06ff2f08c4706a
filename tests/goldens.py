"""Golden texts as people read them; SPARSECOMPILE_UPDATE_GOLDENS=1 writes them anew."""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from pathlib import Path

LEAST_RUN = 4
"""Lines of another text that are worth leaving out."""


def check_golden(path: Path, text: str) -> None:
    if os.environ.get("SPARSECOMPILE_UPDATE_GOLDENS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def unlike(text: str, whole: str, where: str) -> str:
    """The text without runs of lines that a whole golden has too, `where` it is."""
    lines, found, at = text.splitlines(keepends=True), list[str](), 0
    matcher = SequenceMatcher(None, whole.splitlines(keepends=True), lines, autojunk=False)
    for _, begin, size in matcher.get_matching_blocks():
        found += lines[at:begin]
        at = begin + size
        left_out = [f"... {size} lines as in {where} ...\n"]
        found += left_out if size >= LEAST_RUN else lines[begin:at]
    return "".join(found)
