"""Kernels in Triton's interpreter: in a process of their own, since it replaces the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"
SLOW = ("test_laws.py",)
FILES = [
    pytest.param(path.name, marks=[pytest.mark.slow] * (path.name in SLOW))
    for path in sorted(FOLDER.glob("test_*.py"))
]


@pytest.mark.parametrize("file", FILES)
def test_in_the_interpreter(file: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / file)],
        env={**env, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
