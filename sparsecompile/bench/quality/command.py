"""`sparsecompile bench quality`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsecompile.bench.checkout import check_checkout
from sparsecompile.errors import OptionError, SparseCompileError

COLUMNS = {
    "recipe": "recipe",
    "perplexity": "perplexity",
    "over_dense": "% over\ndense",
    "mbytes": "MB of\nlinears",
    "decode": "decode\ntokens/s",
    "decode_ratio": "x dense",
    "prefill": "prefill\ntokens/s",
    "prefill_ratio": "x dense",
    "packed": "packed",
}
DTYPES = ("float32", "bfloat16", "float16")


def quality(
    text: Annotated[Path, typer.Option(help="The text that perplexity is of.")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="'smollm2' or the folder of a checkpoint.")
    ] = "smollm2",
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="'quantize=int4[group=32]', 'sparsify=2:4+method=wanda'; several times."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A text to sparsify by: 32 parts of it.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Parts of the text.")] = 20,
    length: Annotated[int, typer.Option(min=2, help="Tokens of each.")] = 1024,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    rounds: Annotated[int, typer.Option(min=0, help="Samples of each time; 0 times nothing.")] = 5,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
) -> None:
    """Perplexity, bytes and speed of a language model: dense, quantised, pruned, sparsified.

    Perplexity is the compiled model's. Speed is beside the dense model under Inductor, interleaved.
    'smollm2' is for a checkout: packages leave it out.
    """
    import torch

    from sparsecompile.bench.quality.recipes import recipes_of
    from sparsecompile.bench.quality.rows import CONTEXT, STEPS, bench_quality
    from sparsecompile.bench.results import check_writable, show
    from sparsecompile.codegen.cpp import machine
    from sparsecompile.commands.checkpoint import batches_of

    check_writable(json, csv)
    if dtype not in DTYPES:
        raise OptionError("dtype", f"{dtype!r} is none of {', '.join(DTYPES)}")
    if rounds and length < CONTEXT + STEPS:
        raise OptionError(
            "length", f"{length} tokens are fewer than the {CONTEXT + STEPS} that decoding takes"
        )
    recipes = recipes_of(recipe or (), calibrated=calibration is not None)
    loaded, tokenizer = _load(model)
    loaded = loaded.to(getattr(torch, dtype))
    read = batches_of(text, tokenizer, windows, length, "text")
    calibrated = calibration and batches_of(calibration, tokenizer, 32, length, "calibration")
    here = machine.measure_machine(torch.get_num_threads())
    rows = list(
        bench_quality(
            model,
            loaded,
            read,
            recipes,
            here,
            calibration=calibrated or None,
            rounds=rounds,
            started=lambda what: typer.echo(what, err=True),
        )
    )
    parts = f"{len(read)} windows of {length}"
    title = f"quality {model} {dtype}, {parts}: {rows[0].where}"
    show("quality", title, rows, here, COLUMNS, group="model", json_path=json, csv_path=csv)


def _load(model: str) -> tuple[Any, Any]:
    if model != "smollm2":
        from sparsecompile.commands.checkpoint import load_checkpoint

        return load_checkpoint(model)
    check_checkout("bench quality smollm2")
    from sparsecompile.bench.peers.models import smollm2

    if why := smollm2.missing(None):
        raise SparseCompileError(f"smollm2 cannot be loaded: {why}")
    return smollm2.load()
