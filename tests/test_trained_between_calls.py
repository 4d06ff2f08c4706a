"""Weights that optimizers and averages change between calls: the next call has them."""

from __future__ import annotations

import pytest
import torch
from packing import MLP, Packing, close


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_a_fused_optimizer_s_step_is_noticed(kind: str) -> None:
    """It leaves the version counters of weights as they are."""
    model = MLP()
    fast, x = torch.compile(model, backend=Packing()), torch.randn(4, 32)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            close(fast(x), model(x))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    with torch.no_grad():
        close(fast(x), model(x))


def test_an_average_of_weights_is_swapped_in_and_out() -> None:
    """As scripts do it by hand, through `.data`, and as torch's own averages do it."""
    model, x = MLP(), torch.randn(4, 32)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    with torch.no_grad():
        fast, fast_average = (torch.compile(m, backend=Packing()) for m in (model, averaged))
        for step in range(3):
            for parameter in model.parameters():
                parameter.mul_(1 + step)
            averaged.update_parameters(model)
            close(fast(x), model(x))
            close(fast_average(x), averaged(x))
            backup = [parameter.data for parameter in model.parameters()]
            for own, other in zip(model.parameters(), averaged.module.parameters(), strict=True):
                own.data = other.data
            close(fast(x), averaged(x))
            for own, data in zip(model.parameters(), backup, strict=True):
                own.data = data
            close(fast(x), model(x))
            for own, other in zip(model.parameters(), averaged.module.parameters(), strict=True):
                own.data.lerp_(other.data, 0.5)
            close(fast(x), model(x))


@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}, {}])
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_optimizers_that_step_between_calls_are_noticed(kind: str, how: dict[str, bool]) -> None:
    model, x = MLP(), torch.randn(4, 32)
    fast = torch.compile(model, backend=Packing())
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, **how)
    for _ in range(3):
        with torch.no_grad():
            close(fast(x), model(x))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        close(fast(x), model(x))
