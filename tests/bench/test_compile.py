"""`sparsecompile bench compile`: its parts, files and failures, with models that say nothing."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sparsecompile.bench.compile import models
from sparsecompile.bench.compile.rows import CompileRow
from sparsecompile.bench.compile.worker import CANDIDATES, PARTS, measure
from sparsecompile.bench.peers.models import smollm2
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.codegen.entries import VARIABLE
from sparsecompile.commands.app import app
from sparsecompile.errors import SparseCompileError

MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")
MODEL = """\
import torch


def make():
    return torch.nn.ReLU(), (torch.ones(1),)


def broken():
    raise RuntimeError("no such weights")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)
    (tmp_path / "demo.py").write_text(MODEL)


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ("bench", "compile", *words))


def test_every_candidate_cold_and_warm() -> None:
    result = bench("demo.py:make", "--json", "out.json", "--csv", "out.csv")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(Path("out.json").read_text())
    assert (facts["schema"], facts["command"]) == (1, "compile")
    rows: list[dict[str, Any]] = facts["rows"]
    with Path("out.csv").open(newline="") as file:
        assert [{k: str(v) for k, v in row.items()} for row in rows] == list(csv.DictReader(file))
    assert all(list(row) == [field.name for field in fields(CompileRow)] for row in rows)
    cases = [(row["caches"], row["candidate"]) for row in rows]
    assert cases == [(caches, name) for caches in ("cold", "warm") for name in CANDIDATES]
    assert [line.partition(": ")[2] for line in result.stderr.splitlines()] == [
        f"{name}, {caches}" for caches, name in cases
    ]
    for row in rows:
        assert row["samples"] == 1
        assert row["dynamo"] > 0
        assert row["inductor"] > 0
        assert (row["passes"] > 0) == (row["candidate"] == "sparse")
        parts = (*PARTS, "dynamo", "other", "call")
        assert sum(row[part] for part in parts) == pytest.approx(row["seconds"])
        assert (row["ratio"] == 1) == (row["candidate"] == "inductor")
    assert "over" in result.stdout


def test_what_sparsecompile_does_is_in_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(torch._dynamo.utils, "compilation_time_metrics", {})
    torch._dynamo.reset()
    found = measure("small", "sparse", str(tmp_path / "cache"))
    assert all(found[part] > 0 for part in PARTS)
    assert 0 < found["other"] < found["seconds"]
    assert list((tmp_path / "cache").glob("strips*.so"))


def test_what_fails_is_said() -> None:
    result = bench("demo.py:broken")
    assert result.exit_code == 1
    first, *_, last = result.stderr.splitlines()[1:]
    assert first == "error: compiling demo.py:broken with inductor ended with exit status 1"
    assert last == "RuntimeError: no such weights"


def test_smollm2_is_for_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsecompile.bench.peers", None)
    result = bench("smollm2")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: bench compile smollm2 is left out of the package that is installed: run it in"
    )


def test_smollm2_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "missing", lambda model: "not installed: pip install gguf")
    with pytest.raises(SparseCompileError) as error:
        models.load("smollm2")
    assert str(error.value) == "smollm2 cannot be loaded: not installed: pip install gguf"
