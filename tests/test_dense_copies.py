"""Weights that are no Parameters as they are, and a dense copy of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from linears import LARGE, Attention, Masked, agree, nodes_of
from packing import Packing, sparse_
from torch import Tensor, nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.cpp.onednn import onednn_for

Copied = tuple[nn.Module, Callable[[], nn.Module], dict[str, Any]]


def pruned(weight: Tensor) -> Tensor:
    return weight * sc.NM(2, 4).prune(weight)


@pytest.fixture(params=["masked", "pruned", "merged"])
def copied(request: pytest.FixtureRequest) -> Copied:
    """A model whose dense weights are no Parameters, what it stands for, options."""
    if request.param == "masked":
        model: nn.Module = Masked()
        return model, lambda: model, {}
    model = Attention(2) if request.param == "merged" else nn.Sequential(nn.Linear(64, 32))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) / 8)

    def stands_for() -> nn.Module:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for p in other.parameters():
                if p.dim() == 2:
                    p.copy_(pruned(p))
        return other

    return model.requires_grad_(False), stands_for, {"prune": "2:4"}


def test_a_copy_serves_where_dense_wins_everywhere(copied: Copied, tuned: Tuned) -> None:
    tuned.dense_wins()
    model, stands_for, options = copied
    backend = Packing(tune="fast", strict=True, **options)
    fast = torch.compile(model, backend=backend, dynamic=True)
    with torch.no_grad():
        for rows, scale in ((4, 1.0), (64, 1.0), (64, 0.5)):
            for p in model.parameters():
                p.mul_(scale)
            agree(fast, stands_for(), torch.randn(rows, 64))
    for node in nodes_of(backend):
        assert not node.packed
        assert node.packed_bytes == node.dense_bytes
        assert node.reason.startswith("dense is faster: ")
        assert node.lossy == ("prune 2:4" if options else "")
    after = backend.compiler.report.after
    assert "dense_0" in after
    assert ("dense_linear" in after) == (onednn_for(torch.float32) is not None)


def test_where_gradients_flow_the_copy_is_torchs_own(tuned: Tuned) -> None:
    tuned.dense_wins()
    model = nn.Sequential(nn.Linear(64, 32)).requires_grad_(False)
    backend = Packing(tune="fast", prune="2:4")
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 64, requires_grad=True)
    fast(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, pruned(model[0].weight).sum(0).expand(4, 64))
    after = backend.compiler.report.after
    assert "dense_0" in after
    assert "dense_linear" not in after


@pytest.mark.skipif(onednn_for(torch.float32) is None, reason="torch was built without oneDNN")
@pytest.mark.parametrize("wins", [lambda rows: True, lambda rows: rows > LARGE])
def test_a_weight_of_the_models_own_is_copied_when_asked_for(
    wins: Callable[[int], bool], tuned: Tuned
) -> None:
    tuned.dense_wins(wins)
    model = sparse_(nn.Linear(64, 32)).requires_grad_(False)
    for copies in (False, True):
        backend = Packing(tune="fast", dense_copies=copies)
        fast = torch.compile(model, backend=backend, dynamic=True)
        with torch.no_grad():
            for rows, scale in ((4, 1.0), (64, 1.0), (64, 0.5), (4, 1.0)):
                model.weight.mul_(scale)
                agree(fast, model, torch.randn(rows, 64))
        assert ("dense_" in backend.compiler.report.after) == copies


def test_no_copy_is_kept_beside_a_layout_unless_asked_for(copied: Copied, tuned: Tuned) -> None:
    tuned.dense_wins(lambda rows: rows > LARGE)
    model, stands_for, options = copied
    for copies in (False, True):
        backend = Packing(tune="fast", dense_copies=copies, **options)
        fast = torch.compile(model, backend=backend, dynamic=True)
        with torch.no_grad():
            for rows, scale in ((4, 1.0), (64, 1.0), (64, 0.5), (4, 1.0)):
                for p in model.parameters():
                    p.mul_(scale)
                agree(fast, stands_for(), torch.randn(rows, 64))
        for node in nodes_of(backend):
            assert node.kernel is not None
            assert (node.kernel.ranges[-1] == "any m: dense") == copies
            assert (node.packed_bytes > node.dense_bytes) == copies
