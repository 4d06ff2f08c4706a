"""`sparsecompile tune`: the tuning record, to see, to move and to forget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="What was measured to choose kernels, kept in the cache folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Entry = Mapping[str, Any]


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what was measured for this version and machine, the fastest schedule of each kind."""
    from sparsecompile.codegen.tuning.measurements import TuningRecord, tuning_key

    record = TuningRecord()
    by_key: dict[str, dict[str, Any]] = {}
    for entry in record.entries():
        timings = by_key.get(entry["key"], {}).get("timings", {})
        by_key[entry["key"]] = {**entry, "timings": {**timings, **entry["timings"]}}
    entries = [{**e, "current": tuning_key(e["facts"]) == key} for key, e in by_key.items()]
    if as_json:
        typer.echo(json.dumps({"record": str(record.path), "entries": entries}, indent=2))
        return
    current = [entry for entry in entries if entry["current"]]
    if current:
        from rich.console import Console

        out: Any = Console(highlight=False, markup=False)
        out = out if out.is_terminal else Console(highlight=False, markup=False, width=100)
        out.print(_table(current))
    else:
        typer.echo("nothing was measured for this version and machine yet")
    others = len(entries) - len(current)
    if others:
        typer.echo(f"and {others} of other versions or machines, which --json shows")


@app.command("export")
def export_(path: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the record to a file, for machines that are exactly like this one."""
    from sparsecompile.codegen.tuning.measurements import TuningRecord

    count = TuningRecord().export(path)
    typer.echo(f"wrote {count} measurement{'s' * (count != 1)} to {path}")


@app.command("import")
def import_(path: Annotated[Path, typer.Argument(help="What `export` wrote.")]) -> None:
    """Add the measurements of a file; those of other versions or machines are never used."""
    from sparsecompile.codegen.tuning.measurements import TuningRecord

    count = TuningRecord().merge(path)
    typer.echo(f"{count} new measurement{'s' * (count != 1)}")


@app.command()
def clear() -> None:
    """Forget everything that was measured."""
    from sparsecompile.codegen.tuning.measurements import TuningRecord

    record = TuningRecord()
    count = len(record.entries())
    record.clear()
    typer.echo(f"{record.path}: forgot {count} measurement{'s' * (count != 1)}")


def _table(entries: Iterable[Entry]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("problem", overflow="fold")
    table.add_column("m", justify="right")
    table.add_column("candidate")
    table.add_column("ms", justify="right")
    table.add_column("against dense", justify="right")
    shown = ""
    for entry in sorted(entries, key=_order):
        problem = _problem(entry["facts"])
        m = str(entry["facts"].get("m", ""))
        for name, seconds, ratio in _fastest(entry["timings"], entry["facts"]):
            against = f"{ratio:.2f}x" if ratio is not None else ""
            table.add_row(
                problem if problem != shown else "", m, name, f"{seconds * 1e3:.4g}", against
            )
            shown, m = problem, ""
    return table


def _order(entry: Entry) -> tuple[str, int]:
    m = entry["facts"].get("m")
    return _problem(entry["facts"]), m if isinstance(m, int) else 0


def _problem(facts: Entry) -> str:
    """`n_m[2:4]/float bfloat16 1536x576, density 0.5, threads 2`: what tells problems apart."""
    given = {name: facts.get(name, "?") for name in ("spec", "n", "k", "density", "threads")}
    spec = str(given["spec"]).removeprefix("linear ")
    where = facts.get("gpu", f"threads {given['threads']}")
    return f"{spec} {given['n']}x{given['k']}, density {given['density']}, {where}"


def _fastest(timings: Entry, facts: Entry) -> list[tuple[str, float, float | None]]:
    """Candidates that differ by more than their schedules: label, seconds, lead over the baseline.

    The record has every baseline as `dense`; what that was is among the facts.
    """
    from sparsecompile.kernels.trial import short_name

    best: dict[str, float] = {}
    for name, timing in timings.items():
        label = short_name(name)
        best[label] = min(timing["seconds"], best.get(label, timing["seconds"]))
    baseline = best.pop("dense", None)
    found = [(name, each, baseline and baseline / each) for name, each in best.items()]
    if baseline is not None:
        found.append((facts.get("baseline", "dense"), baseline, None))
    return sorted(found, key=lambda each: each[1])
