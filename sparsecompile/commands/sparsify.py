"""`sparsecompile sparsify`: a checkpoint of Transformers becomes a sparse one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecompile.commands.checkpoint import batches_of, load_checkpoint
from sparsecompile.errors import OptionError

if TYPE_CHECKING:
    from sparsecompile.sparsification.recipe import Recipe

RECIPE = "sparsify.toml"
"""Beside the checkpoint: what it was made by."""


def sparsify(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint of Transformers.")],
    out: Annotated[Path, typer.Option(help="Folder for the sparse checkpoint.")],
    pattern: Annotated[
        str | None, typer.Option(help="'2:4'; with a budget several: 'dense,4:8,2:4'.")
    ] = None,
    method: Annotated[str, typer.Option(help="How weights are chosen.")] = "sparsegpt",
    budget: Annotated[
        str | None, typer.Option(help="Share of dense: 'bytes=0.6', 'density=0.5'.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A file that says all this, .toml or .yaml, llm-compressor's too."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A text that the model is calibrated on.")
    ] = None,
    batches: Annotated[int, typer.Option(min=1, help="How many parts of it are used.")] = 32,
    length: Annotated[int, typer.Option(min=1, help="Tokens of each.")] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make weights of a checkpoint sparse, or values on a grid, with as little loss as possible.

    The recipe is saved beside the checkpoint.
    """
    if (recipe is None) == (pattern is None) or (recipe is not None and budget is not None):
        raise OptionError(
            "recipe", "give either --recipe, or --pattern and what goes with it: --method, --budget"
        )
    asked = _asked(pattern or "", method, budget) if recipe is None else _read(recipe)
    made, tokenizer = load_checkpoint(model)
    data: Sequence[Any] | None = None
    if calibration is not None:
        data = batches_of(calibration, tokenizer, batches, length, "calibration")
        if made.can_generate():
            data = [{"input_ids": ids, "labels": ids} for ids in data]
    report = asked.apply(made, data)
    made.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    asked.to_file(out / RECIPE)
    typer.echo(report.to_json() if as_json else str(report))


def _asked(pattern: str, method: str, budget: str | None) -> Recipe:
    from sparsecompile.sparsification.recipe import Recipe

    if budget is None:
        return Recipe(pattern, method)
    unit, _, share = budget.partition("=")
    try:
        limit = {unit: float(share)}
    except ValueError:
        raise OptionError("budget", f"--budget {budget!r} is not such as 'bytes=0.6'") from None
    # A comma between brackets belongs to the pattern.
    return Recipe(re.split(r",(?![^\[(]*[\])])", pattern), method, budget=limit)


def _read(path: Path) -> Recipe:
    from sparsecompile.sparsification.recipe import Recipe

    return Recipe.from_file(path)
