"""Packed embeddings: rows of tables that are packed in the model, tied to a head or not."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from packing import Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.codegen.cpp.embedding import EmbeddingRows
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.operators.embedding.packed import packed_embedding
from sparsecompile.testing import apply_passes, captured
from sparsecompile.weights.stored import Stored


class Tied(nn.Module):
    """A table, a linear, and the table again as the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.mix = nn.Embedding(96, 64), sparse_(nn.Linear(64, 64))
        self.head = sparse_(nn.Linear(64, 96, bias=False))
        self.head.weight = self.tokens.weight
        self.requires_grad_(False)
        with torch.no_grad():
            self.head.weight.mul_(sc.NM(2, 4).prune(self.head.weight))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.tokens(ids))))


class Reader(nn.Module):
    """A table that nothing else reads, and a scale that keeps it from being the whole graph."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table) * 2


def packed_table(name: str = "n_m[2:4]", dtype: torch.dtype = torch.float32) -> sc.PackedTensor:
    format = sc.default_registry().format(name)
    weight = torch.randn(80, 64).to(dtype)
    return sc.PackedTensor(Stored(format.pack(weight * sc.NM(2, 4).prune(weight))))


IDS = torch.tensor([[3, 0, 79], [5, 3, 41]])


@pytest.mark.parametrize("options", [{}, {"quantize": "int4[group=32]"}, {"quantize": "int8"}])
def test_an_embedding_that_is_a_head_reads_its_layout(options: dict[str, str]) -> None:
    if options.get("quantize") == "int8":
        options = {"quantize": "int8-weight-only"}
    model = sc.compress(Tied(), **options)
    want = copy.deepcopy(model)(IDS)
    backend = Packing(tune="off")
    close(torch.compile(model, backend=backend)(IDS), want)
    report = backend.compiler.report
    by_reader = {node.reader: node for node in report.nodes}
    table, head = by_reader["embedding"], next(n for n in report.linears if n.shape == (96, 64))
    assert table.packed
    assert table.format == head.format
    assert table.kernel is not None
    assert head.kernel is not None
    assert table.kernel.layout == head.kernel.layout
    # One layout, which the model's own weight has become.
    assert model.tokens.weight.stored.is_adopted
    assert "2 of 2 linears packed" in str(report)
    assert "read by no linear" not in str(report)


@pytest.mark.parametrize("name", ["n_m[2:4]", "bitmap", "csr", "dense/int8", "bitmap/int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_the_weights_own(name: str, dtype: torch.dtype) -> None:
    model = Reader(packed_table(name, dtype))
    want = model.table.stored.unpack()
    backend = Packing(tune="off")
    fast = torch.compile(model, backend=backend, dynamic=True)
    for ids in (IDS, IDS.int(), IDS[:1, :1], torch.arange(80), IDS[:0]):
        assert torch.equal(fast(ids), F.embedding(ids, want) * 2)
    assert backend.packed == ["table"]


def test_a_row_that_does_not_exist() -> None:
    fast = torch.compile(Reader(packed_table()), backend=Packing(tune="off"))
    fast(IDS)
    with pytest.raises(IndexError, match="row 80 of 80"):
        fast(IDS + 1)


def test_a_table_of_another_format_is_read_dense() -> None:
    model = Reader(packed_table())
    fast = torch.compile(model, backend=Packing(tune="off"))
    fast(IDS)
    other = packed_table("bitmap")
    model.table = nn.Parameter(other, requires_grad=False)
    assert torch.equal(fast(IDS), F.embedding(IDS, other.stored.unpack()) * 2)


def test_the_whole_way_through_inductor() -> None:
    model = sc.compress(Tied())
    want = copy.deepcopy(model)(IDS)
    fast = torch.compile(model, backend="sparse", options={"tune": "off"})
    close(fast(IDS), want)
    close(fast(IDS[:, :1]), want[:, :1])


def test_the_node_is_the_definition() -> None:
    model = Reader(packed_table("dense/int8"))
    gm, inputs = captured(model, IDS)
    edit = apply_passes(sc.Compiler().passes, gm, inputs)
    (node,) = [n for n in edit.nodes() if n.target is packed_embedding]
    assert node.args[2] == "dense/int8"
    assert torch.equal(
        packed_embedding(IDS, model.table.stored.unpack(), "dense/int8"), model(IDS) / 2
    )


def test_a_dense_table_is_left_alone() -> None:
    backend, model = Packing(tune="off"), Tied()
    close(torch.compile(model, backend=backend)(IDS), model(IDS))
    (graph,) = backend.compiler.report.graph_reports
    reasons = [r.reason for r in graph.rewrites if r.pass_name == "pack_embedding"]
    assert reasons == ["the table is dense in the model: its rows are read as they are"]


def test_the_op_takes_the_dense_table_too() -> None:
    registry = sc.default_registry()
    embedding = registry.get(sc.Operator, "embedding")
    dense = torch.randn(80, 64)
    packed = registry.format("dense/int8").pack(dense)
    spec = embedding.spec(packed.format, dense.dtype)
    problem = Problem(spec, (80, 64), (1,), True, DenseUse.NEVER, "off", 1.0)
    kernel = sc.Compiler().device.lower({problem: lambda: Contents(packed)})[problem].kernel
    assert kernel is not None
    assert torch.equal(embedding.run(problem, [IDS], dense, kernel)(), F.embedding(IDS, dense))


def test_the_heads_layout_is_read_where_the_tables_own_would_be_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost = EmbeddingRows.cost

    def generic_is_cheap(self: EmbeddingRows, *args: Any) -> Cost:
        found = cost(self, *args)
        is_cheap = isinstance(self.linear, GenericLinear)
        return found if is_cheap else replace(found, nbytes=1000 * found.nbytes)

    monkeypatch.setattr(EmbeddingRows, "cost", generic_is_cheap)
    model = Tied()
    with torch.no_grad():
        model.head.weight.mul_(torch.rand_like(model.head.weight) < 0.1)
    backend = Packing(tune="off")
    model = sc.compress(model, formats=["bitmap"])
    ids = torch.randint(96, (4, 128))
    close(torch.compile(model, backend=backend)(ids), copy.deepcopy(model)(ids))
    kernels = {n.reader or n.shape: n.kernel for n in backend.compiler.report.nodes if n.kernel}
    assert kernels["embedding"].layout == kernels[96, 64].layout
    alone = Packing(tune="off")
    reader = Reader(model.tokens.weight)
    torch.compile(reader, backend=alone)(ids)
    (node,) = alone.compiler.report.nodes
    assert node.kernel is not None
    assert node.kernel.layout != kernels["embedding"].layout
