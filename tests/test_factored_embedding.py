"""Embeddings that are products: factors stay factors, and each is packed as any other weight."""

from __future__ import annotations

import pytest
import torch
from packing import Packing, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse
from sparsecompile.weights.stored import Stored

IDS = torch.tensor([[3, 0, 79], [5, 3, 41]])


def frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def packed(value: Tensor) -> nn.Parameter:
    """A table that is 2:4 in the model."""
    format = sc.default_registry().format("n_m[2:4]")
    return frozen(sc.PackedTensor(Stored(format.pack(value * sc.NM(2, 4).prune(value)))))


class Factored(nn.Module):
    """`table[ids] @ basis`, as ALBERT and decomposed tables have it."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.table = frozen(torch.randn(80, 16))
        self.basis = frozen(sparse_(nn.Linear(16, 64)).weight.detach().clone())
        self.spelling = spelling

    def forward(self, ids: Tensor) -> Tensor:
        rows = F.embedding(ids, self.table)
        if self.spelling == "linear":
            return F.linear(rows, self.basis)
        if self.spelling == "einsum":
            return torch.einsum("bsr,nr->bsn", rows, self.basis)
        return rows @ self.basis.T


class Train(nn.Module):
    """A tensor train: a row is the product of a slice of each core, `[8, r]` and `[r, 8]`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = frozen(torch.randn(8, 8 * 4)), frozen(torch.randn(10, 4 * 8))

    def forward(self, ids: Tensor) -> Tensor:
        first = F.embedding(ids // 10, self.first).unflatten(-1, (8, 4))
        return (first @ F.embedding(ids % 10, self.last).unflatten(-1, (4, 8))).flatten(-2)


class Morphemes(nn.Module):
    """A word is the Kronecker product of the vectors of its two morphemes, summed over ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.table = frozen(torch.randn(24, 4 * 8))

    def forward(self, ids: Tensor) -> Tensor:
        parts = (ids % 24, (ids + 7) % 24)
        first, last = (F.embedding(part, self.table).unflatten(-1, (4, 8)) for part in parts)
        return torch.einsum("bsri,bsrj->bsij", first, last).flatten(-2)


def exact(model: nn.Module) -> Tensor:
    """In float64, from tables that are dense again."""
    for name, weight in list(model.named_parameters()):
        dense = weight.dequantize() if isinstance(weight, sc.PackedTensor) else weight
        setattr(model, name, frozen(dense.double()))
    return model(IDS)


@pytest.mark.parametrize("held", ["dense", "packed"])
@pytest.mark.parametrize("spelling", ["linear", "matmul", "einsum"])
def test_a_factored_table_stays_factored(spelling: str, held: str) -> None:
    torch._dynamo.reset()
    model, backend = Factored(spelling), Packing(tune="off")
    if held == "packed":
        model.table = packed(model.table)
    found, eager = torch.compile(model, backend=backend)(IDS), model(IDS)
    assert_no_worse(found, eager, exact(model))
    nodes = {node.weight: node for node in backend.compiler.report.nodes}
    assert nodes["basis"].format == "n_m[2:4]/float"
    assert nodes["basis"].shape == (64, 16)
    if held == "packed":
        assert nodes["table"].format == "n_m[2:4]/float"
        assert nodes["table"].reader == "embedding"
    else:
        assert list(nodes) == ["basis"]


@pytest.mark.parametrize("make", [Train, Morphemes])
def test_products_of_rows_are_of_packed_rows(make: type[nn.Module]) -> None:
    torch._dynamo.reset()
    model, backend = make(), Packing(tune="off")
    for name, weight in list(model.named_parameters()):
        setattr(model, name, packed(weight))
    found, eager = torch.compile(model, backend=backend)(IDS), model(IDS)
    nodes = backend.compiler.report.nodes
    assert {node.reader for node in nodes} == {"embedding"}
    assert all(node.packed for node in nodes)
    assert_no_worse(found, eager, exact(model))
