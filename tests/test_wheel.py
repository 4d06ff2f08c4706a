"""The wheel: modules, what generated code is made of, and no peers to be measured against."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sparsecompile", "passes", "codegen")
FILES = ("pyproject.toml", "README.md", "LICENSE")
SCRIPT = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.mark.slow
def test_what_the_wheel_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    compiled = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=compiled)
    for file in FILES:
        shutil.copy(ROOT / file, source)
    words = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    there = {
        str(Path("sparsecompile", *{folder} - {"sparsecompile"}, file.relative_to(source / folder)))
        for folder in FOLDERS
        for file in (source / folder).rglob("*")
        if file.suffix in (".py", ".h", ".cpp", ".typed")
    }
    peers = {name for name in there if name.startswith("sparsecompile/bench/peers/")}
    assert peers
    assert {name for name in held if ".dist-info/" not in name} == there - peers
