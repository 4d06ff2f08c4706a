"""Methods that ask what the loss hangs on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsification.small import ids, rows, stack, transformer
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.sparsification.methods.gradient import Gradient
from sparsecompile.sparsification.methods.taylor import Taylor


def off(output: Tensor, batch: Tensor) -> Tensor:
    """Mean square of what a linear gives and of its input's part."""
    return F.mse_loss(output, batch[:, :16])


def scores(method: sc.Method, model: nn.Linear) -> Tensor:
    """By the book, in float64, with the gradients of a linear and that loss in closed form."""
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    slopes = []
    for x in (batch.double() for batch in rows()):
        wrong = x @ weight.t() + bias - x[:, :16]
        slopes.append(2 * wrong.t() @ x / wrong.numel())
    mean, square = torch.stack(slopes).mean(0), torch.stack(slopes).square().mean(0)
    if isinstance(method, Gradient):
        return mean.abs()
    second = square * weight.square() / 2 if method == Taylor(order=2) else 0
    return (mean * weight - second).abs()


@pytest.mark.parametrize("method", [Gradient(), Taylor(), Taylor(order=2)], ids=repr)
def test_what_stays_has_the_largest_scores(method: sc.Method) -> None:
    torch.manual_seed(0)
    model = nn.Linear(32, 16)
    expected = scores(method, model)
    report = sc.sparsify(model, "unstructured(0.5)", method=method, calibration=rows(), loss=off)
    kept = (model.weight != 0).detach()
    assert float(expected[kept].min()) >= float(expected[~kept].max()) * (1 - 1e-4)
    assert report.kept == 0.5
    assert model.weight.requires_grad
    assert model.weight.grad is None


def test_the_loss_that_models_have_with_labels() -> None:
    batches = [{"input_ids": x, "labels": x} for x in ids()]
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    report = sc.sparsify(model, "2:4", method="taylor", calibration=batches)
    assert (len(report.weights), report.kept) == (21, 0.5)
    assert not any(p.requires_grad for p in model.parameters())
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    patterns, budget = {"*.0.*": ["dense", "2:4"], "*": None}, {"density": 0.8}
    spent = sc.sparsify(model, patterns, method="gradient", calibration=batches, budget=budget)
    assert spent.allocation is not None
    assert 0.5 < spent.allocation.cost / spent.allocation.dense <= 0.8


def test_what_is_not_used_goes_first() -> None:
    model = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 16))
    with torch.no_grad():
        model[1].weight[:, :4] = 0
    patterns = {"0": "unstructured(0.5)", "1": None}
    sc.sparsify(model, patterns, method="taylor", calibration=rows(), loss=off)
    assert not bool(model[0].weight[:4].any())
    assert bool(model[0].weight[4:].all())


def refused(calibration: Any, **given: Any) -> str:
    with pytest.raises(sc.OptionError) as caught:
        sc.sparsify(stack(), "2:4", method="taylor", calibration=calibration, **given)
    return str(caught.value)


def test_refused() -> None:
    assert "method 'taylor' needs calibration" in refused(None)
    assert "has no loss to take gradients of: give batches with labels" in refused(rows())
    several = refused(rows(), loss=lambda output, batch: output)
    assert "the loss of batch 0 is of shape (48, 16), not one number" in several
    alone = refused(rows(), loss=lambda output, batch: batch.sum())
    assert "is of shape (), not one number that hangs on the weights" in alone
    assert "is no tensor, not one" in refused(rows(), loss=lambda output, batch: 1.0)
    endless = refused(rows(), loss=lambda output, batch: output.sum() * torch.inf)
    assert "the loss of batch 0 of the calibration is" in endless
    with pytest.raises(sc.OptionError, match="the order of Taylor is 1 or 2, not 3"):
        Taylor(order=3)
