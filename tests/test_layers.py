"""What must not know of what."""

from __future__ import annotations

from imports import imports

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
