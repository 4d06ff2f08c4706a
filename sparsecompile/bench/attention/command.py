"""`sparsecompile bench attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

COLUMNS = {
    "case": "case",
    "candidate": "candidate",
    "ms": "ms",
    "mad": "+-",
    "speedup": "over sdpa,\nits mask",
    "speedup_best": "over best\nother",
    "gflops": "Gflop/s",
    "gb_per_s": "GB/s",
    "difference": "error over\nsdpa's",
    "kernel": "kernel",
}


def attention(
    case: Annotated[str, typer.Option(help="Those that begin so, such as 'decode*512'.")] = "*",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32,bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each candidate.")] = 10,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where the backend was slower than torch.")
    ] = False,
) -> None:
    """Time attention: as models call it, without a mask, FlexAttention and the sparse backend.

    In one process, interleaved.
    """
    import torch

    from sparsecompile.bench.attention.cases import attention_cases
    from sparsecompile.bench.attention.run import SPARSE, bench_attention
    from sparsecompile.bench.results import check_writable, show
    from sparsecompile.codegen.cpp import machine

    check_writable(json, csv)
    cases = attention_cases(case, dtype)
    here = machine.measure_machine(torch.get_num_threads())
    rows = bench_attention(
        cases, here, rounds=rounds, started=lambda each: typer.echo(str(each), err=True)
    )
    title = f"attention: {rows[0].where}"
    show("attention", title, rows, here, COLUMNS, group="case", json_path=json, csv_path=csv)
    lost = [row for row in rows if row.candidate == SPARSE and row.speedup_best < LEAST]
    for row in lost:
        typer.echo(f"slower than the best of torch's: {row.case}, {row.speedup_best:.2f}x")
    if not lost:
        typer.echo("nowhere slower than the best of torch's")
    if check and lost:
        raise typer.Exit(1)


LEAST = 0.97
"""Less of the best other one's speed is a loss, and not noise."""
