"""`sparsecompile bench attention`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecompile.errors import SparseCompileError

if TYPE_CHECKING:
    from sparsecompile.bench.attention.lengths import LengthRow
    from sparsecompile.bench.attention.run import AttentionRow

COLUMNS = {
    "case": "case",
    "candidate": "candidate",
    "ms": "ms",
    "mad": "+-",
    "speedup": "over sdpa,\nits mask",
    "speedup_best": "over best\nother",
    "kv_gb_per_s": "K and V,\nGB/s",
    "read_share": "of reading\nthem alone",
    "difference": "error over\nsdpa's",
    "kernel": "kernel",
}
LENGTH_COLUMNS = {
    "dtype": "dtype",
    "tokens": "tokens",
    "candidate": "candidate",
    "ms": "ms",
    "peak_mb": "peak MB",
}
LEAST = 0.97
"""Less of the best other one's speed is a loss, and not noise."""


def attention(
    case: Annotated[str, typer.Option(help="Those that begin so, such as 'decode*512'.")] = "*",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "",
    grid: Annotated[
        bool, typer.Option("--grid", help="40 cases of many models, lengths and masks.")
    ] = False,
    lengths: Annotated[
        str,
        typer.Option(help="Instead memory and time by tokens, such as 4096,8192,16384,32768."),
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each candidate.")] = 10,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where the backend was slower than torch.")
    ] = False,
) -> None:
    """Time attention: as models call it, without a mask, FlexAttention and the sparse backend.

    In one process, interleaved. With --lengths a prompt with a window of 256, each length and
    candidate in a process of its own.
    """
    import torch

    from sparsecompile.bench.attention.cases import DTYPES, attention_cases, dtypes_of
    from sparsecompile.bench.attention.lengths import bench_lengths
    from sparsecompile.bench.attention.run import bench_attention
    from sparsecompile.bench.results import check_writable, show
    from sparsecompile.codegen.cpp import machine

    check_writable(json, csv)
    tokens = _tokens(lengths)
    cases = attention_cases(case, dtype, grid=grid)
    here = machine.measure_machine(torch.get_num_threads())
    if tokens:
        by_length = bench_lengths(
            tokens,
            dtypes_of(dtype) or DTYPES,
            here,
            rounds=rounds,
            started=lambda what: typer.echo(what, err=True),
        )
        title = f"attention, window of 256: {by_length[0].where}"
        paths = {"json_path": json, "csv_path": csv}
        show("attention", title, by_length, here, LENGTH_COLUMNS, group="dtype", **paths)
        typer.echo(_lines(by_length))
        return
    rows = bench_attention(
        cases, here, rounds=rounds, started=lambda each: typer.echo(str(each), err=True)
    )
    title = f"attention: {rows[0].where}"
    show("attention", title, rows, here, COLUMNS, group="case", json_path=json, csv_path=csv)
    verdict, is_lost = _verdict(rows)
    typer.echo(verdict)
    if check and is_lost:
        raise typer.Exit(1)


def _verdict(rows: Sequence[AttentionRow]) -> tuple[str, bool]:
    """Every case that is slower than the best of torch's, and how near the others come to it."""
    from sparsecompile.bench.attention.run import SPARSE

    ours = sorted((r for r in rows if r.candidate == SPARSE), key=lambda r: r.speedup_best)
    lost = [row for row in ours if row.speedup_best < LEAST]
    lines = [
        f"slower than the best of torch's: {row.case}, {row.speedup_best:.2f}x" for row in lost
    ]
    if not lost:
        lines.append("nowhere slower than the best of torch's")
    least = f"{ours[0].speedup_best:.2f}x, {ours[0].case}"
    lines.append(f"the least of {len(ours)} over the best of torch's: {least}")
    return "\n".join(lines), bool(lost)


def _tokens(text: str) -> list[int]:
    """`4096,8192`.

    Raises:
        SparseCompileError: it names fewer than two lengths, or something else.
    """
    words = [word.strip() for word in text.split(",") if text]
    if words and (len(set(words)) < 2 or not all(w.isdecimal() and int(w) for w in words)):
        raise SparseCompileError(
            f"--lengths {text!r} names no two numbers of tokens: write 4096,8192"
        )
    return [int(word) for word in words]


def _lines(rows: Sequence[LengthRow]) -> str:
    """How time grows with tokens under the backend."""
    from sparsecompile.bench.attention.lengths import line_of
    from sparsecompile.bench.attention.run import SPARSE

    lines = []
    for dtype in dict.fromkeys(row.dtype for row in rows):
        line = line_of([r for r in rows if (r.dtype, r.candidate) == (dtype, SPARSE)])
        lines.append(
            f"{SPARSE}, {dtype}: {line.us_per_token:.3g} us a token, R^2 {line.r_squared:.4f}"
        )
    return "\n".join(lines)
