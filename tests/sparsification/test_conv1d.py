"""GPT-2's `Conv1D`, whose weight is turned."""

from __future__ import annotations

import copy
from typing import Any

import torch
from sparsification.small import ids, rows, transformer
from torch import nn
from transformers.pytorch_utils import Conv1D

import sparsecompile as sc


def test_it_is_a_linear_with_its_weight_turned() -> None:
    """Every step of it: moments, gradients, allocation, biases, zeros that are kept."""
    torch.manual_seed(0)
    batches = rows()
    reference = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16))
    turned = nn.Sequential(Conv1D(64, 32), nn.GELU(), Conv1D(16, 64))
    plain = copy.deepcopy(reference)

    def reset() -> None:
        with torch.no_grad():
            for i in (0, 2):
                plain[i].load_state_dict(reference[i].state_dict())
                turned[i].weight.copy_(reference[i].weight.t())
                turned[i].bias.copy_(reference[i].bias)

    asked: list[tuple[Any, dict[str, Any]]] = [
        ("2:4", {"correct_bias": True}),
        ("block(8,4,0.5)", {"method": "taylor", "loss": lambda output, _: output.square().mean()}),
        (["dense", "4:8", "1:4"], {"budget": {"bytes": 0.7}}),
    ]
    for pattern, given in asked:
        reset()
        reports = [sc.sparsify(m, pattern, calibration=batches, **given) for m in (plain, turned)]
        assert [w.pattern for w in reports[0].weights] == [w.pattern for w in reports[1].weights]
        assert [w.shape for w in reports[0].weights] == [w.shape for w in reports[1].weights]
        for i in (0, 2):
            torch.testing.assert_close(turned[i].weight, plain[i].weight.t())
            torch.testing.assert_close(turned[i].bias, plain[i].bias)
    (node, *_) = sc.explain(turned.requires_grad_(False), batches[0]).nodes
    assert node.packed


def test_zeros_of_conv1d_are_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(16, 32))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sc.KeepZeros(
        model, optimizer, "block(8,4,0.5)", sc.SparseSchedule(steps=1, last=0.5, updates=1)
    )
    model(rows()[0]).square().mean().backward()
    optimizer.step()
    blocks = model[0].weight.t().reshape(2, 8, 8, 4).transpose(1, 2).flatten(2)
    assert bool(((blocks == 0).all(2) == (blocks == 0).any(2)).all())
    assert float((blocks == 0).float().mean()) == 0.5


def test_gpt2() -> None:
    model = transformer("GPT2LMHeadModel", "GPT2Config")
    report = sc.sparsify(model, "2:4", calibration=ids())
    assert len(report.weights) == 3 * 4
    assert report.blocks == 3
