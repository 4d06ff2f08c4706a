"""The packages form layers: no import goes up, and no modules import each other in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest
from imports import PACKAGE, importers, imports

LAYERS = (
    *("errors", "component", "formats", "registry", "structures", "codecs", "masks", "kernels"),
    *("weights", "detection", "graph", "options", "operators", "lowering", "report"),
    *("compiler", "backend", "storage", "sparsification", "", "testing"),
)
"""From the bottom up; the empty one is `sparsecompile` itself."""
TOOLS = ("passes", "codegen", "commands", "bench")
"""Beside each other above all layers: plug-ins, which no layer imports, and what shows them."""
TUNING = "codegen.tuning."
AOT = {
    "sparsecompile.bench.gpu.command",
    "sparsecompile.bench.gpu.correctness",
    "sparsecompile.commands.aot",
    "sparsecompile.commands.aot_text",
}
"""What `sparsecompile aot` and `sparsecompile bench gpu` are made of."""


@cache
def within() -> dict[str, frozenset[str]]:
    """What each module imports of the others, all without the package's own name."""
    known = {name: name.removeprefix("sparsecompile").lstrip(".") for name in imports()}
    return {
        known[name]: frozenset(known[other] for other in others & known.keys() - {name})
        for name, others in imports().items()
    }


def going_up(found: Mapping[str, frozenset[str]]) -> list[str]:
    """Imports of what is above, and of each other's where neither passes nor codegen may."""
    rank = {layer: i for i, layer in enumerate(LAYERS)} | dict.fromkeys(TOOLS, len(LAYERS))

    def is_wrong(layer: str, other: str) -> bool:
        return {layer, other} == {"passes", "codegen"} or rank[other] > rank[layer]

    return [
        f"{name} imports {other}"
        for name, others in found.items()
        for other in sorted(others)
        if is_wrong(name.partition(".")[0], other.partition(".")[0])
    ]


def circle(found: Mapping[str, frozenset[str]]) -> set[str]:
    """Modules that import each other in a circle."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return set(error.args[1])
    return set()


def test_no_import_goes_up() -> None:
    assert going_up(within()) == []


def test_no_modules_import_each_other() -> None:
    assert circle(within()) == set()


def test_every_package_is_a_layer() -> None:
    assert {name.partition(".")[0] for name in within()} == {*LAYERS, *TOOLS}
    assert (
        len([path for path in PACKAGE.iterdir() if not path.name.startswith((".", "__pycache__"))])
        <= 27
    )


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
    found = within()
    assert other in found
    assert going_up({**found, name: found[name] | {other}}) == [f"{name} imports {other}"]


def test_a_circle_is_seen() -> None:
    found = within()
    assert "formats.structure" in found["formats.packed"]
    turned = {**found, "formats.structure": found["formats.structure"] | {"formats.packed"}}
    assert circle(turned) == {"formats.structure", "formats.packed"}


def _of_the_tuner(module: str) -> set[str]:
    return {other.removeprefix(TUNING) for other in within()[module] if other.startswith(TUNING)}


def test_what_decides_knows_nothing_of_the_record() -> None:
    modules = [module for module in within() if module.startswith(TUNING)]
    knowing = {module for module in modules if "measurements" in _of_the_tuner(module)}
    assert knowing == {f"{TUNING}timings"}


def test_the_record_knows_nothing_of_how_it_is_decided() -> None:
    assert _of_the_tuner(f"{TUNING}measurements") == {"measure"}


def test_no_compilation_imports_the_tool_that_looks_at_kernels() -> None:
    assert importers("sparsecompile.bench.aot") == AOT


def test_of_compilations_only_a_full_search_looks_at_machine_code() -> None:
    found = importers("sparsecompile.codegen.triton.inspection")
    tools = {module for module in found if module.startswith("sparsecompile.bench.aot.")}
    assert found - tools - AOT == {"sparsecompile.codegen.triton.workbench"}
