"""What answers at once: these commands import neither torch nor what is as heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sparsecompile.codegen.tuning.measure import Timing
from sparsecompile.codegen.tuning.measurements import TuningRecord, tuning_key

HEAVY = {"torch", "sympy", "numpy", "triton"}
SCRIPT = f"""
import sys
from sparsecompile.commands.app import app
try:
    app(sys.argv[1:], prog_name="sparsecompile")
finally:
    assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""


def light(*words: str) -> str:
    """What a command says, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command", ["", "explain", "aot", "bench linear", "bench peers", "sparsify", "tune"]
)
def test_help(command: str) -> None:
    assert light(*command.split(), "--help").lstrip().startswith("Usage: sparsecompile")


@pytest.mark.usefixtures("cache_folder")
def test_version() -> None:
    assert f"\ntorch         {torch.__version__}\n" in light("version")


@pytest.mark.usefixtures("cache_folder")
def test_what_is_kept() -> None:
    facts = {"spec": "linear bitmap/float float32", "n": 8, "k": 4, "m": 1}
    TuningRecord().add(tuning_key(facts), facts, {"dense": Timing(1.0, 0.0)})
    assert light("cache").endswith(", 1 measurement\n")
    assert "bitmap/float float32 8x4" in light("tune", "show")
    assert '"current": true' in light("tune", "show", "--json")
