"""What `bench linear` says in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sparsecompile.bench import linear
from sparsecompile.bench.environment import Environment
from sparsecompile.bench.linear import LinearRow
from sparsecompile.bench.verdict import losses, verdict
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.commands.app import app

MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")


def row(case: str, candidate: str, compiled: float, bare: float, kernel: str = "") -> LinearRow:
    numbers: dict[str, Any] = dict.fromkeys(
        ("m", "ms", "mad", "samples", "dropped", "copies", "speedup", "error", "weight_bytes"), 1
    )
    return LinearRow(
        **vars(Environment.here("a CPU")),
        **numbers,
        case=case,
        shape="64x64",
        dtype="float32",
        format="2:4",
        candidate=candidate,
        speedup_best_dense=bare,
        speedup_compiled_dense=compiled,
        gb_per_s=1.0,
        bandwidth_share=0.5,
        kernel=kernel,
    )


ROWS = [
    row("a", "linear", 1.2, 0.5),
    row("a", "sparse", 0.9, 0.8, "bitmap/float strips"),
    row("b", "sparse", 1.5, 1.5, "bitmap/float strips"),
    row("c", "sparse", 0.99, 0.98, "dense: strips is 0.7x of dense"),
    row("d", "sparse int4", 0.6, 0.6, "dense/int4 strips"),
    row("e", "sparse", 1.0, 0.8, "bitmap/float strips"),
    row("f", "sparse", 1.1, 0.7, "bitmap/float strips"),
]


def test_losses_are_those_of_the_backend_and_the_worst_comes_first() -> None:
    assert [(r.case, r.speedup_compiled_dense) for r in losses(ROWS)] == [("d", 0.6), ("a", 0.9)]


def test_a_verdict_names_what_was_lost_and_what_was_avoided() -> None:
    assert verdict(ROWS).splitlines() == [
        "6 cases: 5 packed, 1 left dense; slower than 0.97x of the dense linear that Inductor "
        "compiles: 2; only of a dense linear that no graph calls: 2",
        "  slower: d sparse int4 0.60x",
        "  slower: a sparse 0.90x",
        "  behind a bare call: f sparse 0.70x",
        "  behind a bare call: e sparse 0.80x",
        "  left dense: c sparse 0.99x: dense: strips is 0.7x of dense",
    ]
    assert "Inductor compiles: none; only of a dense linear that no graph calls: none" in verdict(
        ROWS[2:4]
    )


@pytest.mark.parametrize(("rows", "status"), [(ROWS, 1), (ROWS[2:4], 0)])
def test_the_command_can_fail(
    rows: list[LinearRow], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)
    monkeypatch.setattr(linear, "bench_linear", lambda *args, **options: rows)
    assert CliRunner().invoke(app, ("bench", "linear")).exit_code == 0
    result = CliRunner().invoke(app, ("bench", "linear", "--check"))
    assert result.exit_code == status
    assert verdict(rows) in result.stdout
