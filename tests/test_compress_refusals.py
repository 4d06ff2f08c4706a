"""compress: what it leaves dense, and why; options that it does not take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import MLP
from torch import nn
from torch.nn.utils import prune

import sparsecompile as sc


def test_what_is_left_dense_says_why(caplog: pytest.LogCaptureFixture) -> None:
    model = MLP()
    model.up.weight.data.normal_()
    with caplog.at_level(logging.INFO, "sparsecompile"):
        sc.compress(model)
    assert "up.weight: dense: the weight holds no zeros" in caplog.text
    assert "down.weight: n_m[2:4]/float, exact" in caplog.text
    assert "packed no weight" not in caplog.text
    why = r"up\.weight was left dense: no pattern of options\['prune'\] matches up\.weight; the"
    with pytest.raises(sc.RejectedError, match=why):
        sc.compress(model, strict=True, prune={"down": "2:4"})


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Conv1d(3, 3, 1)), "the model has no nn.Linear"),
        (nn.Linear(8, 8), "weight: the weight holds no zeros"),
        (
            nn.Sequential(*(nn.Linear(8, 8) for _ in range(6))),
            "0.weight: no pattern of options['prune'] matches 0.weight; the weight holds no zeros; "
            "1.weight: no pattern of options['prune'] matches 1.weight; the weight holds no zeros; "
            "2.weight: no pattern of options['prune'] matches 2.weight; the weight holds no zeros; "
            "3 more reasons",
        ),
    ],
)
def test_where_nothing_is_packed_a_warning_says_why(
    model: nn.Module, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"prune": {"5": "unstructured(0)"}} if "5" in dict(model.named_modules()) else {}
    sc.compress(model, **options)
    (record,) = (r for r in caplog.records if r.name == "sparsecompile")
    assert record.levelname == "WARNING"
    assert record.message == f"compress packed no weight: {why}"


def test_weights_that_are_computed_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = MLP()
    prune.l1_unstructured(model.up, "weight", 0.5)
    prune.l1_unstructured(model.down, "weight", 0.5)
    sc.compress(model)
    assert "packed no weight: up: its weight is computed: torch.nn.utils.prune.rem" in caplog.text
    prune.remove(model.down, "weight")
    caplog.clear()
    with caplog.at_level(logging.INFO, "sparsecompile"):
        sc.compress(model)
    assert "up: dense: its weight is computed" in caplog.text
    assert "packed no weight" not in caplog.text


def test_a_weight_that_pruning_makes_no_smaller_is_pruned_all_the_same() -> None:
    model = nn.Linear(32, 32)
    sc.compress(model, prune="unstructured(0.01)")
    assert type(model.weight) is nn.Parameter
    assert int((model.weight == 0).sum()) == round(0.01 * 32 * 32)
    assert model.weight.requires_grad
    untouched = nn.Linear(32, 32)
    before = untouched.weight
    assert sc.compress(untouched).weight is before


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 0), lambda: nn.LazyLinear(4)])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_weights_without_values_stay_as_they_are(make: Callable[[], nn.Module]) -> None:
    model = make()
    before = model.weight
    assert sc.compress(model).weight is before


def test_a_refused_quantisation_says_why(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(32, 32)
    model.weight.data[3, 5] = torch.nan
    with caplog.at_level(logging.INFO, "sparsecompile"):
        sc.compress(model, quantize="int4")
    assert "not quantized: row 3, column 5 holds nan" in caplog.text


def test_weights_that_a_pass_does_something_else_with_stay_dense() -> None:
    model = MLP()
    sc.compress(model, passes={"without": ["pack_linear"]})
    assert not any(isinstance(p, sc.PackedTensor) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "off"}, "compress takes no option 'tune'; known: formats, passes, prune"),
        ({"quantize": "int8"}, "int8 activations are no property of a weight"),
        ({"prune": "3:2"}, "cannot prune to '3:2'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.OptionError, match=message):
        sc.compress(MLP(), **options)
