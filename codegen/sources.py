"""A digest of this package's files: what generated code and cached graphs depend on."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from sparsecompile.kernels.spec import digest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIXES = (".py", ".cpp", ".h")


@cache
def sources_digest() -> str:
    """Digest of every Python and C++ file of the installed `sparsecompile` package."""
    return digest(*_texts(files("sparsecompile"), ""))


def _texts(folder: Traversable, prefix: str) -> list[str]:
    texts: list[str] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            if not entry.name.startswith((".", "__pycache__")):
                texts += _texts(entry, name)
        elif entry.name.endswith(SUFFIXES):
            texts += [name, entry.read_text(encoding="utf-8")]
    return texts
