"""Pruning on request: of the compiled copy alone, by name, to what can be pruned to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsecompile import Compiler, OptionError


def test_pruning_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(16, 16)).requires_grad_(False)
    before = model[0].weight.clone()
    compiler = Compiler(prune={"0.*": "2:4"})
    report = compiler.explain(model, torch.randn(3, 16))
    (node,) = report.nodes
    assert node.format == "n_m[2:4]/float"
    assert node.lossy == "prune 2:4"
    assert torch.equal(model[0].weight, before)


def test_pruning_by_name() -> None:
    layers = nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)
    model = nn.Sequential(*layers).requires_grad_(False)
    report = Compiler(prune={"2.*": "unstructured(0.8)"}).explain(model, torch.randn(3, 16))
    assert [node.format for node in report.nodes] == [None, "bitmap/float"]


@pytest.mark.parametrize(
    "recipe", ["3", "unstructured", "unstructured(1.5)", "block(0,1,0.5)", "4:2", "2:40"]
)
def test_recipes_that_cannot_be_used(recipe: str) -> None:
    with pytest.raises(OptionError, match="cannot prune to"):
        Compiler(prune=recipe)
