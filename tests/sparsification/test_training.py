"""Training on: zeros stay, schedules are followed, distillation is what it is said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparsification.small import ids, rows, stack, transformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

import sparsecompile as sc


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    x = torch.cat(rows())
    y = torch.roll(x[:, :16], 1, 1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()


def zeros(model: nn.Sequential) -> list[Tensor]:
    return [model[i].weight.detach() == 0 for i in (0, 2, 4)]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
        lambda p: Adam(p, lr=0.01),
        lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
        lambda p: SGD(p, lr=0.01, momentum=0.9, nesterov=True, foreach=True),
    ],
)
def test_zeros_stay_with_any_optimiser(make: Callable[..., Optimizer]) -> None:
    model = stack()
    optimizer = make(model.parameters())
    # A momentum from before.
    train(model, optimizer, 2)
    sc.sparsify(model, "2:4", method="magnitude")
    before, weights = zeros(model), [p.detach().clone() for p in model.parameters()]
    keeper = sc.KeepZeros(model, optimizer)
    train(model, optimizer, 5)
    assert all(map(torch.equal, zeros(model), before))
    assert not any(map(torch.equal, model.parameters(), weights))
    keeper.remove()
    train(model, optimizer, 1)
    assert not any(map(torch.equal, zeros(model), before))


def test_zeros_gather_no_momentum() -> None:
    model = stack()
    sc.sparsify(model, "2:4", method="magnitude")
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    sc.KeepZeros(model, optimizer)
    train(model, optimizer, 2)
    momentum = optimizer.state[model[0].weight]["momentum_buffer"]
    assert bool((momentum[model[0].weight == 0] == 0).all())
    assert bool((momentum != 0).any())


def test_a_model_becomes_sparse_on_a_schedule() -> None:
    model = stack()
    optimizer = Adam(model.parameters(), lr=0.01)
    schedule = sc.SparseSchedule(steps=12, last=0.75, begin=2, updates=5)
    keeper = sc.KeepZeros(model, optimizer, "unstructured(0.75)", schedule)
    shares = []
    for step in range(1, 16):
        train(model, optimizer, 1)
        assert keeper.step == step
        shares.append(float(zeros(model)[1].float().mean()))
    for step, share in enumerate(shares, 1):
        assert share == pytest.approx(schedule.share(step), abs=1e-3)
    assert shares[2] == 0
    assert shares[3] > 0
    assert shares[-4:] == [0.75] * 4


def test_shapes_of_schedules() -> None:
    def shares(shape: str, **given: Any) -> list[float]:
        schedule = sc.SparseSchedule(8, 0.8, shape=shape, updates=4, **given)
        return [round(schedule.share(step), 3) for step in range(10)]

    assert shares("linear") == [0, 0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]
    assert shares("linear", first=0.4) == [0.4, 0.4, 0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8]
    quarter = [1 - 0.2 ** (i / 4) for i in range(5)]
    assert shares("steps")[::2] == [round(share, 3) for share in quarter]
    assert shares("cubic")[2] == round(0.8 * (1 - 0.75**3), 3)
    schedule = sc.SparseSchedule(8, 0.8, updates=4)
    assert [step for step in range(12) if schedule.is_update(step)] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"first": 0.9}, "shares of zeros rise from 0 to 1, not from 0.9 to 0.8"),
        ({"last": 1.5}, "shares of zeros rise from 0 to 1"),
        ({"shape": "square"}, "no schedule is called 'square'; known: cubic, linear, steps"),
        ({"updates": 9}, "9 updates do not fit between step 0 and 8"),
        ({"begin": 8}, "10 updates do not fit between step 8 and 8"),
    ],
)
def test_schedules_that_cannot_be(given: dict[str, Any], why: str) -> None:
    with pytest.raises(sc.OptionError, match=why):
        sc.SparseSchedule(**{"steps": 8, "last": 0.8, **given})


@pytest.mark.parametrize(
    ("pattern", "last"), [("2:4", 0.5), (None, 0.5), ("unstructured(0.5)", None), ("2:4", None)]
)
def test_a_schedule_and_a_pattern_go_together(pattern: str | None, last: float | None) -> None:
    model = stack()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = None if last is None else sc.SparseSchedule(20, last)
    if (pattern, last) == ("2:4", None):
        sc.KeepZeros(model, optimizer, pattern)
        return
    with pytest.raises(sc.OptionError, match="do not end at one share of zeros"):
        sc.KeepZeros(model, optimizer, pattern, schedule)


def test_divergences() -> None:
    student, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    p, q = teacher.double().softmax(-1), student.double().softmax(-1)
    mean = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(-1)

    exact = {"forward": kl(p, q), "reverse": kl(q, p), "js": (kl(p, mean) + kl(q, mean)) / 2}
    where = torch.rand(2, 5) < 0.5
    for kind, each in exact.items():
        loss = sc.Distillation(kind)
        torch.testing.assert_close(loss(student, teacher).double(), each.mean())
        found = loss(student, teacher, where=where)
        torch.testing.assert_close(found.double(), each[where].mean())
        assert float(loss(teacher, teacher)) == pytest.approx(0, abs=1e-6)
    mixed = sc.Distillation(alpha=0.25)(student, teacher, torch.tensor(3.0))
    torch.testing.assert_close(mixed.double(), 0.25 * exact["forward"].mean() + 0.75 * 3)


def test_temperature_leaves_gradients_their_size() -> None:
    teacher = torch.randn(4, 7) / 100
    sizes = []
    for temperature in (1.0, 10.0):
        student = (torch.randn(4, 7) / 100).requires_grad_()
        torch.manual_seed(1)
        sc.Distillation(temperature=temperature)(student, teacher).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.5)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "backward"}, "no divergence is called 'backward'; known: forward, reverse, js"),
        ({"alpha": 2}, "alpha must be from 0 to 1, not 2"),
        ({"temperature": 0}, "the temperature must be above 0, not 0"),
    ],
)
def test_distillations_that_cannot_be(given: dict[str, Any], why: str) -> None:
    with pytest.raises(sc.OptionError, match=why):
        sc.Distillation(**given)
    with pytest.raises(sc.OptionError, match=r"alpha of 0\.5 needs the loss of the task itself"):
        sc.Distillation(alpha=0.5)(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_training_on_with_distillation_makes_up_for_zeros(kind: str) -> None:
    teacher = transformer("LlamaForCausalLM", "LlamaConfig")
    model = transformer("LlamaForCausalLM", "LlamaConfig").requires_grad_(True)
    for p in (*model.parameters(), *teacher.parameters()):
        p.data *= 4 if p.dim() > 1 else 1
    sc.sparsify(model, "2:4", calibration=ids())
    optimizer = AdamW(model.parameters(), lr=1e-3)
    sc.KeepZeros(model, optimizer)
    loss, lost = sc.Distillation(kind), []
    for step in range(24):
        x = ids()[step % 3]
        with torch.no_grad():
            expected = teacher(x, use_cache=False).logits
        optimizer.zero_grad()
        off = loss(model(x, use_cache=False).logits, expected)
        off.backward()
        optimizer.step()
        lost.append(float(off.detach()))
    assert sum(lost[-3:]) < 0.8 * sum(lost[:3])
    for layer in model.model.layers:
        assert float((layer.mlp.up_proj.weight == 0).float().mean()) >= 0.5
