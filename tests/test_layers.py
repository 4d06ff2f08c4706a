"""The packages form layers: no import goes up, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sparsecompile

ROOT = Path(sparsecompile.__file__).parent
LAYERS = (
    *("errors", "component", "formats", "registry", "structures", "codecs", "kernels"),
    *("weights", "detection", "graph", "operators", "options", "lowering", "report"),
    *("compiler", "backend", "storage", "__init__", "testing"),
)
"""From the bottom up. A package imports those before it, and modules of its own."""
TOOLS = ("passes", "codegen", "commands", "bench")
"""Beside each other above all layers: plug-ins, which no layer imports, and what shows them."""


@lru_cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of the library that it imports anywhere, for type checkers too."""
    paths = {_name(path): path for path in _files(ROOT)}
    return {name: set(_imported(path, paths)) - {name} for name, path in paths.items()}


def _files(folder: Path) -> Iterator[Path]:
    # `Path.rglob` does not follow the links to passes and codegen.
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif path.suffix == ".py":
            yield path


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imported(path: Path, paths: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in found:
            if name == "sparsecompile":
                yield "__init__"
            elif (inner := name.removeprefix("sparsecompile.")) in paths and inner != name:
                yield inner


def going_up(found: Mapping[str, set[str]]) -> list[str]:
    """Imports of what is above, of layers by tools' rules."""
    rank = {layer: i for i, layer in enumerate(LAYERS)} | dict.fromkeys(TOOLS, len(LAYERS))

    def is_wrong(name: str, other: str) -> bool:
        layer, below = name.partition(".")[0], other.partition(".")[0]
        if {layer, below} == {"passes", "codegen"}:
            return True
        return rank[below] > rank[layer]

    return [
        f"{name} imports {other}"
        for name, others in found.items()
        for other in sorted(others)
        if is_wrong(name, other)
    ]


def circle(found: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where there are none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_goes_up() -> None:
    assert going_up(imports()) == []


def test_no_modules_import_each_other() -> None:
    assert circle(imports()) == []


def test_every_package_is_a_layer() -> None:
    packages = {name.partition(".")[0] for name in imports()}
    assert packages == {*LAYERS, *TOOLS}
    assert len(list(ROOT.iterdir())) <= 26 + (ROOT / "__pycache__").exists()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("formats.packed", "kernels.spec"),
        ("graph.edit", "operators.linear.packed"),
        ("lowering.lower", "codegen.cache"),
        ("passes.prune", "codegen.cache"),
        ("codegen.cache", "passes.prune"),
    ],
)
def test_an_import_that_is_turned_round_is_seen(name: str, other: str) -> None:
    found = imports()
    assert other in found
    assert going_up({**found, name: {*found[name], other}}) == [f"{name} imports {other}"]


def test_a_circle_is_seen() -> None:
    found = imports()
    assert "formats.structure" in found["formats.packed"]
    turned = {**found, "formats.structure": {*found["formats.structure"], "formats.packed"}}
    assert {"formats.structure", "formats.packed"} <= set(circle(turned))
