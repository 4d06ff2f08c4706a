"""The `sparsecompile` command."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sparsecompile.bench.command import app as bench
from sparsecompile.commands.aot import aot
from sparsecompile.commands.cache import app as cache
from sparsecompile.commands.model_factory import EXAMPLE, FACTORY, InputError, fail, load_model
from sparsecompile.commands.sparsify import sparsify
from sparsecompile.commands.tune import app as tune
from sparsecompile.errors import BuildError, SparseCompileError

if TYPE_CHECKING:
    from sparsecompile.component import Component
    from sparsecompile.report.model import Report


class _Group(TyperGroup):
    """Says what is wrong without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SparseCompileError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Group,
    help="torch.compile(model, backend='sparse'): what it does to a model, and why.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench, name="bench")
app.add_typer(cache, name="cache")
app.add_typer(tune, name="tune")
app.command(epilog=f"{FACTORY}\n\n\b\n{EXAMPLE}")(aot)
app.command()(sparsify)


@app.command(epilog=f"{FACTORY}\n\n\b\n{EXAMPLE}")
def explain(
    target: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="What makes the model.")],
    prune: Annotated[str | None, typer.Option(help="Lossy: '2:4', 'unstructured(0.8)'.")] = None,
    quantize: Annotated[
        str | None, typer.Option(help="Lossy: 'int8-weight-only', 'int8', 'int4[group=32]'.")
    ] = None,
    formats: Annotated[str | None, typer.Option(help="Only these: '2:4,unstructured'.")] = None,
    device: Annotated[str | None, typer.Option("--target", help="Such as 'cpu[avx2]'.")] = None,
    mode: Annotated[
        str | None,
        typer.Option("--tune", metavar="MODE", help="How to choose: off, cached, fast, full."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where zeros stay dense.")] = False,
    findings: Annotated[
        bool, typer.Option("--findings", help="Show what each format found.")
    ] = False,
    trials: Annotated[
        bool, typer.Option("--trials", help="Show every candidate that was measured.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    graph: Annotated[bool, typer.Option("--graph", help="Print the packed graphs.")] = False,
    source: Annotated[str | None, typer.Option(help="Print a generated source, or 'all'.")] = None,
) -> None:
    """Show what happens to every linear of a model, and why.

    The model runs once on its inputs, without gradients.
    """
    if as_json + graph + (findings or trials) + (source is not None) > 1:
        fail("--json, --graph, --source and --findings or --trials exclude one another")
    model, args, kwargs = load_model(target)
    options: dict[str, Any] = {"strict": strict}
    options |= {"prune": prune} if prune is not None else {}
    options |= {"quantize": quantize} if quantize is not None else {}
    options |= {"tune": mode} if mode is not None else {}
    options |= {"target": device} if device is not None else {}
    # A comma between brackets belongs to the format.
    options |= {"formats": re.split(r",(?![^\[(]*[\])])", formats)} if formats is not None else {}
    report = _explain(target, options, model, args, kwargs)
    if html is not None:
        try:
            report.to_html(str(html))
        except OSError as error:
            typer.echo(f"error: cannot write {html}: {error.strerror}", err=True)
            raise typer.Exit(1) from error
        typer.echo(f"wrote {html}", err=True)
    if as_json:
        typer.echo(report.to_json())
    elif graph:
        typer.echo(report.after)
    elif source is not None:
        typer.echo("\n".join(_sources(report.sources, source)))
    else:
        from sparsecompile.report.text import render

        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        typer.echo(render(report, findings=findings, trials=trials, color=color))


@app.command()
def formats() -> None:
    """List the structures and codecs that formats are made of, and what splits weights."""
    from sparsecompile.formats.codec import Codec
    from sparsecompile.formats.decomposition import Decomposition
    from sparsecompile.formats.structure import Structure
    from sparsecompile.registry import default_registry

    registry = default_registry()
    typer.echo("A format is structure/codec, such as n_m[2:4]/float.\n\nstructures:")
    _list(registry.all(Structure))
    typer.echo("\ncodecs:")
    _list(registry.all(Codec))
    typer.echo("\ndecompositions, into weights with a format each:")
    _list(registry.all(Decomposition))


@app.command()
def passes() -> None:
    """List the passes in the order they run."""
    from sparsecompile.graph.rule import Pass, Phase, order
    from sparsecompile.registry import default_registry

    ordered = order(default_registry().all(Pass))
    for phase in Phase:
        members = [p for p in ordered if p.phase == phase]
        if members:
            typer.echo(f"{phase.name}:")
            _list(members)


@app.command()
def version() -> None:
    """Print the versions of everything that kernels depend on."""
    from sparsecompile.codegen.cpp.compiler import find_compiler
    from sparsecompile.kernels.target import Target

    try:
        compiler = find_compiler()
        found = f"{compiler.version} ({compiler.command[0]})"
        if compiler.missing:
            found = f"{compiler.missing}. The cache folder was filled by {compiler.version}"
    except BuildError as error:
        found = str(error)
    for name, text in (
        ("sparsecompile", _installed("sparsecompile")),
        ("torch", _torch_version()),
        ("triton", _installed("triton")),
        ("compiler", found),
        ("target", str(Target.host())),
    ):
        typer.echo(f"{name:<14}{text}")


@app.command()
def machine(
    threads: Annotated[int | None, typer.Option(min=1, help="Default: as many as torch.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure, on an idle machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show what this machine can do at most: measured once, then kept in the cache folder."""
    import torch
    from rich.console import Console

    from sparsecompile.codegen.cpp.machine import measure_machine
    from sparsecompile.codegen.cpp.memory import huge_pages, memory_nodes
    from sparsecompile.commands.machine_text import machine_table

    found = measure_machine(threads or torch.get_num_threads(), again=again)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        table = machine_table(found, huge_pages(), memory_nodes())
        Console(highlight=False, markup=False).print(table)


def _explain(
    target: str,
    options: Mapping[str, Any],
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Report:
    from torch._dynamo.exc import BackendCompilerFailed, TorchRuntimeError

    from sparsecompile.compiler import Compiler

    # It logs, with a traceback, what `InputError` says.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        return Compiler(**options).explain(model, *args, **kwargs)
    except BackendCompilerFailed as error:
        if isinstance(error.inner_exception, SparseCompileError):
            raise error.inner_exception from None
        raise
    except TorchRuntimeError as error:
        raise InputError(target, str(error), getattr(error, "real_stack", ())) from None


def _sources(sources: Mapping[str, str], name: str) -> list[str]:
    if name == "all":
        return list(sources.values())
    if name not in sources:
        fail(f"no source {name!r}; there are: {', '.join((*sources, 'all'))}")
    return [sources[name]]


def _list(components: Iterable[Component]) -> None:
    """Print the first line of each docstring; members of a family share one."""
    names: dict[str, list[str]] = {}
    docs: dict[str, str] = {}
    for component in components:
        family = component.name.partition("[")[0]
        names.setdefault(family, []).append(component.name)
        docs.setdefault(family, (inspect.getdoc(type(component)) or "").partition("\n")[0])
    indent = max(map(len, names), default=0) + 4
    for family, members in names.items():
        texts = (docs[family], ", ".join(members) if members != [family] else "")
        lines = [line for text in texts for line in textwrap.wrap(text, 100 - indent)] or [""]
        for i, line in enumerate(lines):
            typer.echo(f"  {'' if i else family:<{indent - 2}}{line}")


def _torch_version() -> str:
    """What `torch.__version__` is, without the seconds that importing torch takes."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return "not installed"
    return str(run_path(str(Path(found.origin).with_name("version.py")))["__version__"])


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
