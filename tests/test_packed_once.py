"""Weights that are shared, computed or called from several graphs are packed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsecompile as sc
from sparsecompile.weights.cache import PACK_CACHE, Made
from sparsecompile.weights.expression import Apply, Leaf, evaluate


def made_of(tensor: Tensor) -> dict[Any, Made[Any]]:
    return PACK_CACHE._memory(tensor).made


def test_a_weight_whose_mask_is_replaced_is_kept_once() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 32), requires_grad=False)
            self.register_buffer("mask", (torch.rand(64, 32) > 0.8).float())

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight * self.mask)

    model, counts = Masked(), []
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(5):
            close(fast(x), model(x))
            counts.append(len(made_of(model.weight)))
            model.mask = (torch.rand(64, 32) > 0.8).float()
    assert counts[1:] == counts[1:2] * 4


def test_functions_of_one_name_are_told_apart() -> None:
    def times(factor: float) -> Callable[[Tensor], Tensor]:
        @sc.weight_function(lossy="")
        def scaled(weight: Tensor) -> Tensor:
            return weight * factor

        return scaled

    leaf = nn.Parameter(torch.ones(2, 2))
    binding = Leaf(0, "weight")
    for factor in (2.0, 3.0):
        apply = Apply(times(factor), (binding,))
        made = PACK_CACHE.get(apply, (leaf,), "value", partial(evaluate, apply, (leaf,)))
        assert made.value[0, 0] == factor


def test_layers_compiled_one_by_one_share_a_graph_and_keep_their_weights() -> None:
    """Dynamo compiles one graph for modules of one structure and passes it each one's weights."""
    layers = [MLP() for _ in range(3)]
    layers[2].up.weight.data.fill_(1)
    backend = Packing()
    for layer in layers:
        layer.compile(backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(2):
            for layer in layers:
                close(layer(x), layer.forward(x))
        packs = [dict(made_of(layer.down.weight)) for layer in layers[:2]]
        for layer in layers:
            close(layer(x), layer.forward(x))
    assert backend.compiler.report.graphs == 1
    for layer, before in zip(layers, packs, strict=False):
        after = made_of(layer.down.weight)
        assert all(after[key] is value for key, value in before.items()), "packed again"


def test_a_tied_weight_is_packed_once_and_read_by_the_embedding() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(48, 32)
            self.head = sparse_(nn.Linear(32, 48, bias=False))
            self.embedding.weight = self.head.weight
            self.again = nn.Linear(32, 48, bias=False)
            self.again.weight = self.head.weight

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            return self.head(x) - self.again(x + 1)

    model = Tied()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    tokens = torch.arange(7)
    with torch.no_grad():
        close(fast(tokens), model(tokens))
        assert len(backend.packed) == 1
        model.head.weight.mul_(2)
        close(fast(tokens), model(tokens))


def test_graph_breaks_and_recompiles_pack_once() -> None:
    model = MLP()

    def run(x: Tensor) -> Tensor:
        x = model(x)
        torch._dynamo.graph_break()
        return model(x)

    fast = torch.compile(run, backend=Packing())
    with torch.no_grad():
        for m in (2, 3, 4):
            x = torch.randn(m, 32)
            close(fast(x), run(x))
    for weight in (model.up.weight, model.down.weight):
        assert len([k for k in made_of(weight) if k[1][0] == "layout"]) == 1


def test_torch_pruned_modules_are_packed_with_their_masks() -> None:
    """`torch.nn.utils.prune` computes `weight_orig * weight_mask` at every call."""
    model = nn.Sequential(nn.Linear(32, 32))
    prune.l1_unstructured(model[0], "weight", 0.8)
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        model[0].weight_mask.fill_(0)
        close(fast(x), model(x))
    assert len(backend.packed) == 1


def test_the_same_values_are_not_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP()
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    with torch.no_grad():
        fast(x)
        monkeypatch.setattr(
            "sparsecompile.lowering.slots.pack_binding", lambda *_: pytest.fail("packed")
        )
        model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
        close(fast(x), model(x))
        torch._dynamo.reset()
        close(torch.compile(model, backend=Packing())(x), model(x))
