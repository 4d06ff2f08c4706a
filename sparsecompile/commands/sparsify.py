"""`sparsecompile sparsify`: a checkpoint of Transformers becomes a sparse one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecompile.errors import ModelError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

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
    made, tokenizer = _load(model)
    data: Sequence[Any] | None = None
    if calibration is not None:
        data = _batches(calibration, tokenizer, batches, length)
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


def _load(folder: str) -> tuple[Any, Any]:
    """The model, of the class that its checkpoint names, and its tokenizer, if there is one."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModelError(
            "sparsify reads checkpoints with Transformers, which is not installed: "
            "pip install 'transformers>=5'"
        ) from error
    if not (Path(folder) / "config.json").is_file():
        raise ModelError(f"{folder} is no folder of a checkpoint: it has no config.json")
    (name, *_) = transformers.AutoConfig.from_pretrained(folder).architectures or ["AutoModel"]
    model = getattr(transformers, name, transformers.AutoModel).from_pretrained(folder)
    tokens = any(Path(folder).glob("tokenizer*"))
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder) if tokens else None


def _batches(path: Path, tokenizer: Any, count: int, length: int) -> list[Tensor]:
    """Parts of a text, `[1, length]` ids each."""
    if tokenizer is None:
        raise OptionError("calibration", "the checkpoint has no tokenizer for --calibration")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError("calibration", f"{path} cannot be read: {error}") from error
    ids = tokenizer(text, return_tensors="pt").input_ids
    if ids.shape[1] < length:
        raise OptionError(
            "calibration", f"{path} has {ids.shape[1]} tokens, fewer than --length {length}"
        )
    parts: list[Tensor] = [part for part in ids.split(length, 1) if part.shape[1] == length]
    return parts[:count]
