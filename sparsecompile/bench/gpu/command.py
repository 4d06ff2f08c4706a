"""`sparsecompile bench gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from sparsecompile.bench.aot.cases import Case
    from sparsecompile.kernels.target import Target

SHAPES = "4096x4096,11008x4096,4096x11008,8192x8192"
ROWS = "1,4,16,64,256,1024,4096"
FORMATS = "dense,2:4,unstructured(0.7),block(16,16,0.5)"
CODECS = "float,int8,int4"
COLUMNS = {
    "case": "n x k, m, dtype, format",
    "candidate": "candidate",
    "ms": "ms",
    "mad": "+-",
    "speedup": "over\ncuBLAS",
    "error": "error",
    "bandwidth_share": "of data sheet\nbandwidth",
    "note": "note",
}


def gpu(
    shape: Annotated[str, typer.Option(help="Out x in features.")] = SHAPES,
    m: Annotated[str, typer.Option("--m", help="Rows of the input.")] = ROWS,
    recipes: Annotated[
        str, typer.Option("--format", help="What weights are pruned to, or 'dense'.")
    ] = FORMATS,
    codec: Annotated[str, typer.Option(help="How kept values are stored.")] = CODECS,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16, float32.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each candidate.")] = 30,
    correctness: Annotated[
        bool, typer.Option(help="First hold every kernel against float64.")
    ] = True,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
) -> None:
    """Check every GPU kernel, then time linears: cuBLAS, cuSPARSELt, CUTLASS, torchao, packed.

    Without a GPU it says so and does nothing. Times are the GPU's own, weights come from memory,
    and up to 16 rows calls are replayed as CUDA graphs.
    """
    import torch

    from sparsecompile.bench.cases import linear_cases, split
    from sparsecompile.bench.results import check_writable
    from sparsecompile.kernels.target import Target
    from sparsecompile.registry import default_registry

    cases = linear_cases(shape, m, dtype, recipes)
    codecs = split(codec, "codec")
    registry = default_registry()
    for name in codecs:
        registry.codec(name)
    check_writable(json, csv)
    if not torch.cuda.is_available():
        typer.echo("no GPU: torch finds none on this machine, so nothing was checked or measured")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    target = Target.of_gpu(device)
    if correctness and not _is_correct(target, device):
        raise typer.Exit(1)
    from sparsecompile.bench.gpu.linear import bench_gpu
    from sparsecompile.bench.results import show
    from sparsecompile.codegen.triton.timer import GpuTimer

    rows = bench_gpu(
        cases,
        target,
        registry,
        GpuTimer(device),
        device=device,
        name=torch.cuda.get_device_name(device),
        codecs=codecs,
        rounds=rounds,
        started=lambda case: typer.echo(str(case), err=True),
    )
    here = rows[0]
    title = (
        f"gpu: {here.machine} ({here.arch}), torch {here.torch}, CUDA or HIP {here.runtime}, "
        f"Triton {here.triton}, sparsecompile {here.sparsecompile} {here.commit}"
    )
    title = title.strip()
    show("gpu", title, rows, target.gpu, COLUMNS, group="case", json_path=json, csv_path=csv)


def _is_correct(target: Target, device: torch.device) -> bool:
    """Check every template x schedule; what is wrong is printed."""
    import torch

    from sparsecompile.bench.gpu.correctness import (
        check_correctness,
        check_operators,
        correctness_cases,
    )
    from sparsecompile.registry import default_registry

    registry, dtypes = default_registry(), (torch.float16, torch.bfloat16, torch.float32)
    found = correctness_cases(registry, target, dtypes)
    count, failures = 0, list[object]()
    for case, wrong in check_correctness(found, registry, device):
        count += 1
        failures += wrong
        _say(count, case)
    for problem, why in check_operators(registry, target, device):
        count += 1
        failures += [f"{problem}: {why}"] if why else []
    for each in failures:
        typer.echo(f"wrong: {each}")
    typer.echo(f"{count} kernels checked against float64, {len(failures)} results wrong")
    return not failures


def _say(count: int, case: Case) -> None:
    if count % 10 == 0:
        typer.echo(f"{count} kernels checked, {case.spec}", err=True)
