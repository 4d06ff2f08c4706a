"""sparsify: weights of a model become sparse, or values on a grid, in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from sparsecompile.errors import ModelError, OptionError
from sparsecompile.registry import default_registry
from sparsecompile.sparsification.allocation import allocate
from sparsecompile.sparsification.budget import Budget
from sparsecompile.sparsification.calibration import Calibration, Stage, at_rest
from sparsecompile.sparsification.gradients import Gradients, Loss, differentiate, own_loss
from sparsecompile.sparsification.journal import Journal, identity
from sparsecompile.sparsification.method import Method
from sparsecompile.sparsification.progress import Progress
from sparsecompile.sparsification.report import SparsifiedWeight, SparsifyReport
from sparsecompile.sparsification.scored import shared_out
from sparsecompile.sparsification.smooth import Smoothed
from sparsecompile.sparsification.smooth import smooth as smooth_norms
from sparsecompile.sparsification.solve import solve
from sparsecompile.sparsification.targets import Target, find_targets


@torch.no_grad()
def sparsify(
    model: nn.Module,
    pattern: str | Sequence[str] | Mapping[str, str | Sequence[str] | None],
    *,
    budget: Mapping[str, float] | None = None,
    method: str | Method = "sparsegpt",
    calibration: Iterable[object] | None = None,
    correct_bias: bool = False,
    smooth: float | None = None,
    loss: Loss = own_loss,
    folder: str | Path | None = None,
    memory: int = 2**32,
    progress: bool = True,
) -> SparsifyReport:
    """Make weights of a model's linears keep a pattern, in place.

    Linears are `nn.Linear` modules and GPT-2's `Conv1D`.

    Lossy. The model stays what it is, with zeros in its weights, or values on a grid: it is saved
    as any other, and `torch.compile(model, backend="sparse")` packs it losslessly. A stack of
    blocks is calibrated block by block, each with what the ones before it give once they are
    sparse; of other models all linears at once.

    Args:
        model: a module; its mode of training stays what it is.
        pattern: `"2:4"`, `"unstructured(0.5)"`, `"block(16,16,0.5)"`, a grid such as `"int4"` or
            `"int8"`, or both, `"2:4/int4[group=64]"`, or a rank as a share of the smaller side,
            `"rank(0.25)"`, for every linear but output heads and what is tied to an embedding; or
            a mapping from name patterns to these, and None, as in
            `{"*.mlp.*": "2:4", "lm_head": None}`: the first that matches counts. With a budget
            lists to choose from, `["dense", "4:8", "2:4"]`, in place of each.
        budget: what all these weights may cost, as a share of what they cost dense:
            `{"bytes": 0.6}`, `{"density": 0.5}`, or `{"milliseconds": 0.7}`, measured by the tuner
            for one row. The last batch is held back to say what each choice loses.
        method: a name, `"magnitude"`, `"wanda"`, `"sparsegpt"`, `"gradient"` or `"taylor"`, or an
            instance with options; `"svd"` for `"rank(0.25)"`.
        calibration: batches that the model runs on: tensors, tuples of arguments or mappings of
            keyword arguments; such as 32 of `[1, 1024]` token ids. All methods but `magnitude` need
            it.
        correct_bias: add to biases by how much the mean of each output is off.
        smooth: SmoothQuant's alpha, 0.5 as a rule: before all else the columns of weights are
            multiplied, and the norms before them divided, so that activations are rounded to 8 bits
            with less loss, as `options={"quantize": "int8"}` does; needs calibration, too.
        loss: for `gradient` and `taylor`, of the model's output and the batch it is of; as a rule
            that which the output has for batches with labels.
        folder: keeps what is done, for the same call after a kill; the result is the same.
        memory: bytes of what blocks read that are kept in memory; the rest is on disk.
        progress: whether a bar is shown on a terminal.

    Raises:
        OptionError: what is asked for cannot be used, or the model does not run on the batches.
        ModelError: not a module, or weights that have no values or cannot be written.
    """
    start = perf_counter()
    if not isinstance(model, nn.Module):
        raise ModelError(f"sparsify takes a module, not {type(model).__name__}")
    chosen = default_registry().get(Method, method) if isinstance(method, str) else method
    targets = find_targets(model, pattern, choices=budget is not None)
    _check(chosen, targets)
    limit = None if budget is None else Budget.of(budget)
    batches = None if calibration is None else list(calibration)
    asked = {
        f"method {chosen.name!r}": chosen.calibrated or chosen.differentiated,
        "correct_bias": correct_bias,
        "smooth": smooth is not None,
        "budget": budget is not None,
    }
    needs = next((name for name, is_asked in asked.items() if is_asked), "")
    if batches is None and needs:
        raise OptionError(
            "calibration",
            f"{needs} needs calibration: a list of batches that the model runs on, such as token "
            "ids [1, 1024]; method='magnitude' needs none",
        )
    rows: list[SparsifiedWeight] = []
    count, allocation = 0, None
    smoothed: tuple[Smoothed, ...] = ()
    with at_rest(model), Progress(progress) as bar:
        runs = None if batches is None else Calibration(model, batches, memory, bar)
        settings = (chosen, correct_bias, smooth, getattr(loss, "__qualname__", ""))
        before = identity(settings, targets, batches or ()) if folder else ""
        if runs is not None and smooth is not None:
            smoothed = smooth_norms(model, runs, smooth, bar)
        gradients: Mapping[str, Gradients] = {}
        if runs is not None and chosen.differentiated:
            gradients = differentiate(targets, runs, loss, bar)
        if runs is not None and limit is not None:
            allocation = allocate(model, targets, limit, chosen, runs, gradients, bar)
            targets = find_targets(model, allocation.patterns)
        targets = shared_out(chosen, targets, gradients)
        patterns = {target.name: str(target.pattern) for target in targets}
        journal = Journal(Path(folder) if folder else None, f"{before} {patterns}")
        named = {target.name: target for target in targets}
        for stage in _stages(named, runs):
            members = [named[name] for name in stage.names]
            done = journal.read(stage.names)
            if done is None:
                done = solve(members, stage.moments(), gradients, chosen, correct_bias)
                journal.write(stage.names, done)
            rows += done[0]
            for name, value in done[1].items():
                model.get_parameter(name).copy_(value)
            count += runs is not None
    seconds = perf_counter() - start
    return SparsifyReport(repr(chosen), tuple(rows), seconds, count, smoothed, allocation)


def _stages(targets: Mapping[str, Target], calibration: Calibration | None) -> Iterator[Stage]:
    if calibration is None:
        yield Stage(tuple(targets), dict)
    else:
        yield from calibration.stages({name: target.linear for name, target in targets.items()})


def _check(method: Method, targets: Iterable[Target]) -> None:
    """Return if a method makes what patterns ask for.

    Raises:
        OptionError: it does not.
    """
    for pattern in (p for target in targets for p in target.patterns if not p.is_dense):
        if method.lowers_rank != (pattern.rank is not None):
            other = "sparsegpt" if method.lowers_rank else "svd"
            raise OptionError(
                "method",
                f"method {method.name!r} makes no weights of pattern '{pattern}': method={other!r} "
                "does",
            )
