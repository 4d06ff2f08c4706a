"""Which modules import which, wherever in their text they do."""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path

import sparsecompile

PACKAGE = Path(sparsecompile.__file__).parent


@cache
def imports() -> dict[str, frozenset[str]]:
    """What each module of the package imports, by full names: modules, and names in them."""
    found = {}
    # Passes and codegen are behind symbolic links.
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            found[module.removesuffix(".__init__")] = frozenset(_imported(path))
    return found


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def importers(package: str) -> set[str]:
    """The modules outside a package, or module, that import it or something in it."""
    inside = f"{package}."
    return {
        module
        for module, names in imports().items()
        if any(f"{name}.".startswith(inside) for name in names)
        if not f"{module}.".startswith(inside)
    }
