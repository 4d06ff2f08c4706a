"""What the wheel holds."""

from __future__ import annotations

from pathlib import Path

from imports import imports
from setuptools import find_packages
from setuptools.config.pyprojecttoml import load_file

ROOT = Path(__file__).parents[1]


def test_packages_are_all_there_but_for_peers() -> None:
    options = load_file(ROOT / "pyproject.toml")["tool"]["setuptools"]["packages"]["find"]
    found = set(find_packages(str(ROOT), **options))
    assert found <= imports().keys()
    left_out = {module.rpartition(".")[0] for module in imports()} - found - {""}
    assert left_out
    assert all(name.startswith("sparsecompile.bench.peers") for name in left_out)
