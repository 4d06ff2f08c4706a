"""`sparsecompile bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecompile.bench.attention.command import attention
from sparsecompile.bench.checkout import check_checkout
from sparsecompile.bench.compile.command import EPILOG, compile_model
from sparsecompile.bench.gpu.command import gpu
from sparsecompile.bench.quality.command import quality
from sparsecompile.commands.model_factory import EXAMPLE, FACTORY, load_model
from sparsecompile.errors import SparseCompileError

if TYPE_CHECKING:
    from sparsecompile.bench.environment import Environment
    from sparsecompile.codegen.cpp.machine import Machine


app = typer.Typer(
    help="Measure packed linears and models against dense ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(attention)
app.command()(gpu)
app.command()(quality)
app.command("compile", epilog=EPILOG)(compile_model)

Rounds = Annotated[int, typer.Option(min=1, help="Samples of each candidate.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")]
Quantize = Annotated[str | None, typer.Option(help="Lossy: also with these, such as 'int4'.")]


@app.command()
def linear(
    shape: Annotated[str, typer.Option(help="Out x in features.")] = "4096x4096",
    m: Annotated[str, typer.Option("--m", help="Rows of the input.")] = "1,4,128,512",
    recipes: Annotated[
        str, typer.Option("--format", help="To what weights are pruned; 'low_rank(512)'; 'dense'.")
    ] = "2:4,unstructured(0.7),block(16,16,0.5)",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "bfloat16",
    quantize: Quantize = None,
    rounds: Rounds = 20,
    rotate: Annotated[
        int | None,
        typer.Option(min=0, help="MB of weights used in turn at m <= 8; default: cold caches."),
    ] = None,
    json: Json = None,
    csv: Csv = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the rows; needs matplotlib.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where the backend was slower than dense.")
    ] = False,
) -> None:
    """Time one linear: F.linear, oneDNN, Inductor and the sparse backend, interleaved.

    Lists have commas between their parts; every combination is measured. Up to 8 rows weights are
    read from memory, not from a cache, unless --rotate 0 says otherwise.
    """
    from sparsecompile.bench.cases import linear_cases, split
    from sparsecompile.bench.linear import bench_linear
    from sparsecompile.bench.plot import load_matplotlib, plot_linear
    from sparsecompile.bench.results import check_writable
    from sparsecompile.bench.verdict import losses, verdict

    cases = linear_cases(shape, m, dtype, recipes)
    options: list[dict[str, str]] = [{}]
    options += [{"quantize": name} for name in split(quantize, "quantize")] if quantize else []
    check_writable(json, csv, plot)
    if plot is not None:
        load_matplotlib()
    machine = _machine()
    rows = bench_linear(
        cases,
        machine,
        options=options,
        rounds=rounds,
        rotate=None if rotate is None else rotate * 1_000_000,
        started=lambda case: typer.echo(str(case), err=True),
    )
    columns = {
        "case": "n x k, m, dtype, format",
        "candidate": "candidate",
        "ms": "ms",
        "mad": "+-",
        "speedup": "over\nF.linear",
        "speedup_best_dense": "over best\ndense",
        "speedup_compiled_dense": "over\nInductor",
        "gb_per_s": "GB/s",
        "bandwidth_share": "of read\nbandwidth",
        "kernel": "kernel",
    }
    _show("linear", rows, machine, columns, "case", json, csv)
    typer.echo(verdict(rows))
    if plot is not None:
        plot_linear(rows, machine, plot)
    if check and losses(rows):
        raise typer.Exit(1)


@app.command(epilog=f"{FACTORY}\n\n\b\n{EXAMPLE}")
def model(
    target: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="What makes the model.")],
    prune: Annotated[str | None, typer.Option(help="Lossy: '2:4', 'unstructured(0.8)'.")] = None,
    quantize: Annotated[str | None, typer.Option(help="Lossy: such as 'int4'.")] = None,
    rounds: Rounds = 20,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Time a model: eager, Inductor and the sparse backend on the same inputs, interleaved."""
    from sparsecompile.bench.model import bench_model
    from sparsecompile.bench.results import check_writable

    check_writable(json, csv)
    options = {"prune": prune, "quantize": quantize}
    chosen = {name: value for name, value in options.items() if value is not None}
    function, args, kwargs = load_model(target)
    machine = _machine()
    rows = bench_model(target, function, args, kwargs, machine, options=chosen, rounds=rounds)
    columns = {
        "candidate": "candidate",
        "ms": "ms",
        "mad": "+-",
        "speedup": "over\neager",
        "speedup_best_dense": "over best\ndense",
        "compile_s": "compile s",
        "difference": "difference",
        "weight_bytes": "weight\nbytes",
        "packed": "packed",
    }
    _show(f"model {target} {rows[0].options}".rstrip(), rows, machine, columns, "model", json, csv)


@app.command()
def overhead(
    chain: Annotated[int, typer.Option(min=2, help="Calls of the chain.")] = 100,
    weights: Annotated[int, typer.Option(min=1, help="Weights to look at.")] = 211,
    rounds: Rounds = 20,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Time what a packed linear costs beside its arithmetic: the call, and the freshness check."""
    from sparsecompile.bench.overhead import bench_overhead
    from sparsecompile.bench.results import check_writable

    check_writable(json, csv)
    machine = _machine()
    rows = bench_overhead(machine, chain=chain, weights=weights, rounds=rounds)
    columns = {
        "what": "what",
        "candidate": "candidate",
        "us": "us",
        "mad": "+-",
        "ratio": "over\ninductor",
        "kernel": "kernel",
    }
    _show("overhead", rows, machine, columns, "what", json, csv)


@app.command()
def peers(
    workload: Annotated[
        str, typer.Option(help="Names, with sizes if wanted: 'minilm:1+8'; or 'all'.")
    ] = "all",
    names: Annotated[
        str,
        typer.Option("--peers", help="Names, with options: 'sparse:bfloat16+prune=2:4'; or 'all'."),
    ] = "all",
    threads: Annotated[int | None, typer.Option(min=1, help="Of each; default: torch's.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder that Transformers reads, or a GGUF file.")
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option(help="A module with more workloads and peers.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each contestant.")] = 10,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to get ready; a sample gets a fifth.")
    ] = 900,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where a step's time goes instead.")
    ] = False,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Time whole models in other runtimes and in this one: a process each, interleaved.

    What is not installed is left out, and the table says what it needs. It is for a checkout:
    packages leave it out.
    """
    check_checkout("bench peers")
    import torch

    from sparsecompile.bench.peers.contract import Peer, Workload
    from sparsecompile.bench.peers.discovery import find
    from sparsecompile.bench.peers.plan import plan
    from sparsecompile.bench.peers.profile import show_parts
    from sparsecompile.bench.peers.series import FAILED, Series
    from sparsecompile.bench.results import check_writable

    check_writable(json, csv)
    more = tuple(add or ())
    runtimes = find(Peer, more)
    cases = plan(
        workload,
        names,
        known=(find(Workload, more), runtimes),
        threads=threads or torch.get_num_threads(),
        model=model,
        add=more,
    )
    series = Series(
        rounds=rounds,
        ready_s=timeout,
        sample_s=timeout / 5,
        started=lambda job: typer.echo(f"{job.workload} {job.size}: {job.contestant}", err=True),
        failed=lambda error: typer.echo(f"error: {error}", err=True),
    )
    if profile:
        for each, jobs in cases:
            show_parts(series, each, jobs, runtimes)
        return
    machine = _machine()
    rows = [row for each, jobs in cases for row in series.run(each, jobs, runtimes, machine)]
    if not rows:
        raise SparseCompileError("no contestant fits; see --workload and --peers")
    columns = {
        "case": "case",
        "contestant": "contestant",
        "per_s": "per s",
        "ms": "ms a\nsample",
        "mad": "+-",
        "of_fastest": "of the\nfastest",
        "overhead_ms": "ms outside\nthe model",
        "note": "with, or why not",
    }
    _show("peers", rows, machine, columns, "case", json, csv)
    if any(row.outcome == FAILED for row in rows):
        raise typer.Exit(1)


def _machine() -> Machine:
    import torch

    from sparsecompile.codegen.cpp.machine import measure_machine

    return measure_machine(torch.get_num_threads())


def _show(
    command: str,
    rows: Sequence[Environment],
    machine: Machine,
    columns: Mapping[str, str],
    group: str,
    json: Path | None,
    csv: Path | None,
) -> None:
    """Print a table and write the files that were asked for."""
    from sparsecompile.bench.results import show

    title = f"{command}: {rows[0].where}"
    name = command.split()[0]
    show(name, title, rows, machine, columns, group=group, json_path=json, csv_path=csv)
