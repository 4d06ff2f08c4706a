"""What must not know of what."""

from __future__ import annotations

from imports import importers, imports

AOT = {
    "sparsecompile.aot_command",
    "sparsecompile.aot_text",
    "sparsecompile.bench.gpu.command",
    "sparsecompile.bench.gpu.correctness",
}
"""What `sparsecompile aot` and `sparsecompile bench gpu` are made of."""
TUNING = "sparsecompile.codegen.tuning."


def _inside(module: str) -> set[str]:
    """What a module of the tuner imports of the others."""
    names = (name.removeprefix(TUNING) for name in imports()[module] if name.startswith(TUNING))
    return {name.partition(".")[0] for name in names}


def test_what_decides_knows_nothing_of_the_record() -> None:
    modules = [module for module in imports() if module.startswith(TUNING)]
    assert {m.removeprefix(TUNING) for m in modules if "measurements" in _inside(m)} == {"timings"}


def test_the_record_knows_nothing_of_how_it_is_decided() -> None:
    assert _inside(f"{TUNING}measurements") == {"measure"}


def test_no_compilation_imports_the_tool_that_looks_at_kernels() -> None:
    assert importers("sparsecompile.bench.aot") == AOT


def test_of_compilations_only_a_full_search_looks_at_machine_code() -> None:
    found = importers("sparsecompile.codegen.triton.inspection")
    tools = {module for module in found if module.startswith("sparsecompile.bench.aot.")}
    assert found - tools - AOT == {"sparsecompile.codegen.triton.workbench"}
