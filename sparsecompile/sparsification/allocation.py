"""Allocation: which weight gets which pattern, so that least is lost within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.budget import Allocation, Budget, Option, spend
from sparsecompile.sparsification.calibration import Calibration
from sparsecompile.sparsification.costs import Costs
from sparsecompile.sparsification.gradients import Gradients
from sparsecompile.sparsification.method import Method
from sparsecompile.sparsification.methods.magnitude import Magnitude
from sparsecompile.sparsification.progress import Progress
from sparsecompile.sparsification.solve import solve
from sparsecompile.sparsification.targets import Target


def allocate(
    model: nn.Module,
    targets: Sequence[Target],
    budget: Budget,
    method: Method,
    calibration: Calibration,
    gradients: Mapping[str, Gradients],
    bar: Progress,
) -> Allocation:
    """Choose patterns; the model stays what it is.

    Each weight is replaced alone by what the method makes of it for each of its patterns, and the
    last batch says what that loses: the divergence of the model's predictions, in nats a token, or
    the squared error of its output over the square of that, where there are no `logits`.

    Raises:
        OptionError: the budget cannot be met.
    """
    held = len(calibration) - 1
    reference = calibration.run(held)
    named = {target.name: target for target in targets}
    found: dict[str, dict[str, Option]] = {name: {} for name in named}
    costs = Costs(budget.unit)
    bar.expect(sum(len(target.patterns) for target in targets))
    for stage in calibration.stages({name: target.linear for name, target in named.items()}):
        members, moments = [named[name] for name in stage.names], stage.moments()
        for pattern in dict.fromkeys(p for target in members for p in target.patterns):
            asked = [replace(t, patterns=(pattern,)) for t in members if pattern in t.patterns]
            rows, parameters = solve(
                asked, moments, gradients, Magnitude() if asked[0].is_dense else method, False
            )
            for target, row, _ in zip(asked, rows, bar.track(len(asked)), strict=True):
                weight = target.turned(parameters[target.parameter("weight")])
                loss = 0.0
                if not target.is_dense:
                    with _replaced(target.weight, weight):
                        loss = divergence(calibration.run(held), reference)
                found[target.name][str(pattern)] = Option(costs.of(row, weight), loss)
    dense = sum(costs.dense(target.weight) for target in targets)
    spent = spend([list(found[name].values()) for name in named], budget.share * dense)
    if spent is None:
        least = sum(min(option.cost for option in found[name].values()) for name in named)
        raise OptionError(
            "budget",
            f"{budget.unit} of {budget.share:.3g} of dense cannot be met: the cheapest patterns "
            f"take {least / dense:.3g}; allow that much, or give patterns that keep less",
        )
    patterns = {
        name: list(found[name])[choice] for name, choice in zip(named, spent.chosen, strict=True)
    }
    shared = [text for text in found[targets[0].name] if all(text in of for of in found.values())]
    uniform = {text: _sum([of[text] for of in found.values()]) for text in shared}
    return Allocation(
        budget.unit,
        budget.share * dense,
        spent.cost,
        spent.loss,
        spent.price,
        dense,
        uniform,
        spent.frontier,
        found,
        patterns,
    )


def _sum(options: Sequence[Option]) -> Option:
    return Option(sum(o.cost for o in options), sum(o.loss for o in options))


@contextmanager
def _replaced(parameter: Tensor, value: Tensor) -> Iterator[None]:
    before = parameter.clone()
    parameter.copy_(value)
    try:
        yield
    finally:
        parameter.copy_(before)


def divergence(output: Any, reference: Any) -> float:
    """How far a model's output is from another: in nats a token, or as a share of its square."""
    if hasattr(output, "logits"):
        now, then = (o.logits.float().log_softmax(-1) for o in (output, reference))
        return float((then.exp() * (then - now)).sum(-1).mean())
    now, then = (
        next(leaf for leaf in tree_leaves(o) if isinstance(leaf, Tensor)).float()
        for o in (output, reference)
    )
    return float((now - then).square().sum() / then.square().sum().clamp(min=1e-30))
