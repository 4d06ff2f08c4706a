"""`sparsecompile aot`: what the compilers make of GPU kernels, with no GPU."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecompile.commands.model_factory import load_model

if TYPE_CHECKING:
    from sparsecompile.bench.aot.cases import Case
    from sparsecompile.bench.aot.kernels import KernelAnalysis

SCHEMA = 1
"""Version of the JSON; rises when a field changes its meaning or goes."""

DTYPES = ("float16", "bfloat16", "float32")


def aot(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:FACTORY]", help="A model; else all that is registered."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="sm_80, sm_86, sm_89, sm_90, sm_100, gfx942; several with commas.")
    ] = "sm_80,sm_90,gfx942",
    formats: Annotated[
        str | None, typer.Option("--format", help="Only these: 'n_m[2:4],dense/int4'.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the activations: float16, bfloat16, float32.")
    ] = "float16",
    prune: Annotated[str | None, typer.Option(help="Of the model: '2:4'.")] = None,
    quantize: Annotated[str | None, typer.Option(help="Of the model: 'int4'.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Every schedule of the search.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that was found.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Fail where a kernel spills or is otherwise at fault.")
    ] = False,
) -> None:
    """Compile GPU kernels with no GPU, and show what came of it.

    Registers, spills, shared memory, matrix instructions, loads, occupancy, and how much faster
    than dense each can be at most.
    """
    from sparsecompile.bench.aot.kernels import analyse_kernels
    from sparsecompile.registry import default_registry

    targets = [name.strip() for name in target.split(",")]
    if model is not None:
        cases = _of_model(model, targets, formats, prune, quantize)
    else:
        cases = _of_registry(targets, formats, dtype, search)
    found = []
    for kernel in analyse_kernels(cases, default_registry(), _say):
        found.append(kernel)
    _say(None)
    if as_json:
        kernels = [kernel.to_dict() for kernel in found]
        typer.echo(json.dumps({"schema": SCHEMA, "kernels": kernels}, indent=2))
    else:
        _print(found)
    if check and any(kernel.faults for kernel in found):
        raise typer.Exit(1)


def _of_registry(
    targets: list[str], formats: str | None, dtype: str, search: bool
) -> Iterator[Case]:
    import torch

    from sparsecompile.bench.aot.cases import registry_cases
    from sparsecompile.codegen.triton.inspection.architecture import architecture
    from sparsecompile.errors import OptionError
    from sparsecompile.kernels.target import Target
    from sparsecompile.registry import default_registry

    registry = default_registry()
    names = dtype.split(",")
    for name in names:
        if name not in DTYPES:
            raise OptionError("dtype", f"--dtype {name!r} is none of {', '.join(DTYPES)}")
    chosen = None if formats is None else [registry.format(name) for name in _split(formats)]
    for name in targets:
        architecture(name)
    for name in targets:
        dtypes = [getattr(torch, kind) for kind in names]
        yield from registry_cases(registry, Target.parse(name), dtypes, chosen, search=search)


def _of_model(
    name: str,
    targets: list[str],
    formats: str | None,
    prune: str | None,
    quantize: str | None,
) -> Iterator[Case]:
    from sparsecompile.bench.aot.cases import report_cases
    from sparsecompile.codegen.triton.inspection.architecture import architecture
    from sparsecompile.compiler import Compiler

    given = {"prune": prune, "quantize": quantize, "formats": formats and _split(formats)}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for target in targets:
        architecture(target)
    model, args, kwargs = load_model(name)
    for target in targets:
        compiler = Compiler(target=target, tune="off", **options)
        yield from report_cases(compiler.explain(model, *args, **kwargs), compiler.registry)


def _split(text: str) -> list[str]:
    """Parts between commas; a comma between brackets belongs to the format."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text)]


def _say(case: Case | None) -> None:
    """Where it is, on one line that is written over."""
    if sys.stderr.isatty():
        text = "" if case is None else f"{case.target.arch} {case.spec}"
        typer.echo(f"\r\x1b[2K{text[:100]}", err=True, nl=False)


def _print(found: list[KernelAnalysis]) -> None:
    from rich.console import Console

    from sparsecompile.commands.aot_text import aot_table, faults

    if not found:
        typer.echo("no Triton kernel: everything stays dense, or nothing supports these formats")
        return
    out: Any = Console(highlight=False, markup=False)
    out = out if out.is_terminal else Console(highlight=False, markup=False, width=190)
    out.print(aot_table(found))
    for line in faults(found):
        typer.echo(line)
