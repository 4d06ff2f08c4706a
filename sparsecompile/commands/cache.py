"""`sparsecompile cache`: the folder of built kernels, to see, to move and to empty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecompile.errors import CacheError

app = typer.Typer(
    help="The folder of built kernels and of what was measured: where it is, and its size.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    clear: Annotated[bool, typer.Option("--clear", help="Delete what is in it.")] = False,
) -> None:
    """Show the folder of built kernels and of what was measured, and its size."""
    if context.invoked_subcommand is not None:
        return
    from sparsecompile.codegen.cache import Cache
    from sparsecompile.codegen.entries import ENTRY
    from sparsecompile.codegen.sweep import sweep
    from sparsecompile.codegen.tuning.measurements import TuningRecord

    folder = Cache().path("").resolve()
    measured = len(TuningRecord().entries())
    try:
        files = [p for p in folder.iterdir() if ENTRY.fullmatch(p.name)] if folder.is_dir() else []
        size = sum(file.stat().st_size for file in files)
        for file in files if clear else ():
            file.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(folder, f"cannot use {error.filename}: {error.strerror}") from error
    if clear:
        sweep(folder)
    done = "deleted " if clear else ""
    known = f", {measured} measurement{'s' * (measured != 1)}" if measured else ""
    typer.echo(f"{folder}: {done}{len(files)} files, {size / 1e6:.1f} MB{known}")


@app.command("export")
def export_(path: Annotated[Path, typer.Argument(help="The file to write, a .tar.gz.")]) -> None:
    """Write all of it to a file, for machines with this CPU, torch, Python and version of ours."""
    from sparsecompile.codegen.archive import export_cache

    typer.echo(f"wrote {export_cache(path)} to {path}")


@app.command("import")
def import_(path: Annotated[Path, typer.Argument(help="What `export` wrote.")]) -> None:
    """Add what is in a file, all of it or nothing. It gets executed: take only files you trust."""
    from sparsecompile.codegen.archive import import_cache
    from sparsecompile.codegen.cache import cache_folder

    typer.echo(f"{import_cache(path)}, now in {cache_folder()}")
