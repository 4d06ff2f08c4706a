"""`sparsecompile bench compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecompile.bench.checkout import check_checkout
from sparsecompile.commands.model_factory import EXAMPLE, FACTORY

EPILOG = f"{FACTORY}\n\n\b\n{EXAMPLE}"
COLUMNS = {
    "caches": "caches",
    "candidate": "candidate",
    "seconds": "s",
    "ratio": "over\ninductor",
    "cpu_seconds": "cpu s",
    "dynamo": "dynamo",
    "passes": "passes",
    "detection": "detection",
    "choosing": "choosing\nkernels",
    "building": "building\nkernels",
    "layouts": "layouts",
    "inductor": "inductor",
    "other": "other",
    "call": "call",
}


def compile_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="'small', 'smollm2' or MODULE:FACTORY.")
    ] = "small",
    rounds: Annotated[int, typer.Option(min=1, help="Compilations of each candidate.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
) -> None:
    """Time the first call of a model, part by part: Inductor and the sparse backend, interleaved.

    Each in a process of its own, first with empty cache folders, then with what that left there.
    'smollm2' is for a checkout: packages leave it out.
    """
    import torch

    from sparsecompile.bench.compile.rows import bench_compile
    from sparsecompile.bench.results import check_writable, show
    from sparsecompile.codegen.cpp import machine

    check_writable(json, csv)
    if model == "smollm2":
        check_checkout("bench compile smollm2")
    here = machine.measure_machine(torch.get_num_threads())
    rows = bench_compile(
        model, here, rounds=rounds, started=lambda what: typer.echo(what, err=True)
    )
    title = f"compile {rows[0].model}: {rows[0].where}"
    show("compile", title, rows, here, COLUMNS, group="caches", json_path=json, csv_path=csv)
