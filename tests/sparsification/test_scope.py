"""Scores of all layers at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsification.small import rows, stack

import sparsecompile as sc
from sparsecompile.sparsification.methods.gradient import Gradient
from sparsecompile.sparsification.methods.magnitude import Magnitude
from sparsecompile.sparsification.methods.taylor import Taylor
from sparsecompile.sparsification.methods.wanda import Wanda


def test_the_smallest_of_all_layers_go() -> None:
    model = stack()
    with torch.no_grad():
        model[2].weight.mul_(10)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() == 2}
    report = sc.sparsify(model, "unstructured(0.6)", method=Magnitude(scope="global"))
    kept, gone = [], []
    for name, weight in before.items():
        mask = model.get_parameter(name) != 0
        kept.append(weight[mask].abs())
        gone.append(weight[~mask].abs())
    assert torch.cat(kept).min() >= torch.cat(gone).max()
    assert report.kept == pytest.approx(0.4, abs=1e-4)
    shares = {w.name: w.kept for w in report.weights}
    assert shares["0"] == shares["4"] == 0 < 0.65 < shares["2"]


@pytest.mark.parametrize("method", [Gradient("global"), Taylor("global"), Taylor("global", 2)])
def test_with_gradients_and_several_patterns(method: sc.Method) -> None:
    report = sc.sparsify(
        stack(),
        {"4": "unstructured(0.25)", "*": "unstructured(0.5)/int8"},
        method=method,
        calibration=rows(),
        loss=lambda output, _: output.square().mean(),
    )
    kept = {w.name: w.kept for w in report.weights}
    assert kept["4"] == 0.75
    assert kept["0"] != kept["2"]
    values = {w.name: w.shape[0] * w.shape[1] for w in report.weights}
    both = sum(kept[n] * values[n] for n in "02") / sum(values[n] for n in "02")
    # What is rounded to zero is gone, too.
    assert 0.45 < both <= 0.5


def refused(pattern: str, method: Any, **given: Any) -> str:
    with pytest.raises(sc.OptionError) as caught:
        sc.sparsify(stack(), pattern, method=method, **given)
    return str(caught.value)


def test_refused() -> None:
    assert "'2:4' keeps as much of every layer" in refused("2:4", Magnitude("global"))
    wanda = refused("unstructured(0.5)", Wanda("global"), calibration=rows())
    assert "wanda calibrates layer by layer" in wanda
    with pytest.raises(sc.OptionError, match="scope 'all' is none of layer, global"):
        Magnitude("all")
