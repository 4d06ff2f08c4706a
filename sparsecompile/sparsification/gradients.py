"""Gradients of weights over the calibration: what methods know of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.calibration import Calibration
from sparsecompile.sparsification.progress import Progress
from sparsecompile.sparsification.targets import Target

Loss = Callable[[Any, Any], Tensor]
"""Of a model's output and the batch that it is of, a number."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """What a loss has to do with weights.

    Attributes:
        mean: of its gradients over batches, `[n, k]` float32.
        square: mean of their squares, the diagonal of the empirical Fisher matrix, `[n, k]`.
    """

    mean: Tensor
    square: Tensor


def own_loss(output: Any, batch: object) -> Tensor:
    """The loss in a model's output.

    Raises:
        OptionError: it has none.
    """
    found = getattr(output, "loss", None)
    if isinstance(found, Tensor):
        return found
    raise OptionError(
        "loss",
        "the output of the model has no loss to take gradients of: give batches with labels, such "
        "as {'input_ids': ids, 'labels': ids}, or loss=, a function of an output and its batch",
    )


def differentiate(
    targets: Sequence[Target], calibration: Calibration, loss: Loss, bar: Progress
) -> Mapping[str, Gradients]:
    """Gradients of the loss of every batch, by the names of the targets; weights stay as they are.

    Raises:
        OptionError: the loss is no number that hangs on the weights, or not finite.
    """
    weights = [target.linear.weight for target in targets]
    asked = [weight.requires_grad for weight in weights]
    found = {
        t.name: Gradients(*(torch.zeros_like(t.weight, dtype=torch.float32) for _ in range(2)))
        for t in targets
    }
    bar.expect(len(calibration))
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for i in bar.track(len(calibration)):
            with torch.enable_grad():
                value = loss(calibration.run(i), calibration.batch(i))
                _check(value, i)
                gradients = torch.autograd.grad(value, weights, materialize_grads=True)
            for target, each in zip(targets, gradients, strict=True):
                gradient = target.turned(each).float()
                found[target.name].mean.add_(gradient / len(calibration))
                found[target.name].square.add_(gradient.square() / len(calibration))
    finally:
        for weight, before in zip(weights, asked, strict=True):
            weight.requires_grad_(before)
    return found


def _check(value: object, i: int) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "no tensor"
        raise OptionError(
            "loss", f"the loss of batch {i} is {what}, not one number that hangs on the weights"
        )
    if not bool(value.isfinite()):
        raise OptionError("loss", f"the loss of batch {i} of the calibration is {value.item()}")
