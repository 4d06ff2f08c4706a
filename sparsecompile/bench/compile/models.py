"""Models to compile: two that are built in, and those of a MODULE:FACTORY."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparsecompile.commands.model_factory import load_model
from sparsecompile.errors import SparseCompileError
from sparsecompile.structures.n_m import NM

Function = Callable[..., Any]
Model = tuple[Function, Callable[[Function], object]]
"""What is compiled, and what calls that for the first time."""
PROMPT = 128


def small() -> Model:
    """Four blocks of two linears, 2:4, called with one row."""
    model = nn.Sequential(*(_Block() for _ in range(4))).eval()
    _prune(model)
    x = torch.randn(1, 512)
    return model, lambda compiled: compiled(x)


def smollm2() -> Model:
    """SmolLM2-135M, 2:4, `generate` with a static cache: a graph of 128 tokens, and one of one.

    Raises:
        SparseCompileError: something that it needs is not installed.
    """
    from sparsecompile.bench.peers.models import smollm2

    if why := smollm2.missing(None):
        raise SparseCompileError(f"smollm2 cannot be loaded: {why}")
    model, _ = smollm2.load()
    _prune(model.model)
    ids = torch.arange(PROMPT)[None]

    def generate(compiled: Function) -> object:
        model.forward = compiled
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=2,
            min_new_tokens=2,
            do_sample=False,
            cache_implementation="static",
        )

    return model.forward, generate


MODELS: dict[str, Callable[[], Model]] = {"small": small, "smollm2": smollm2}


def load(name: str) -> Model:
    """A model by its name in `MODELS`, or by its MODULE:FACTORY.

    Raises:
        SparseCompileError: something that it needs is not installed.
        typer.Exit: the text names nothing that makes a model; said on stderr.
    """
    if name in MODELS:
        return MODELS[name]()
    function, args, kwargs = load_model(name)
    return function, lambda compiled: compiled(*args, **kwargs)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(512, 2048), nn.Linear(2048, 512)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(torch.relu(self.up(x)))
        return out


@torch.no_grad()
def _prune(model: nn.Module) -> None:
    """To 2:4, in place."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight *= NM(2, 4).prune(module.weight)
