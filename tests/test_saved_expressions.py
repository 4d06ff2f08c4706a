"""Weights that are expressions, in models and in files; files of the first version."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import Packing, close, sparse_
from split import Pair, Three, blocks_and_columns
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.storage.save import KEY
from sparsecompile.storage.tensor_file import TensorFile, write_tensors
from sparsecompile.testing import assert_no_worse
from sparsecompile.testing.storage_laws import same_bits
from sparsecompile.weights.parts import part
from sparsecompile.weights.stored import Stored, StoredExpression, store

VERSION_1 = Path(__file__).parent / "files" / "version_1.safetensors"
SUM = "sum(block[16x16]/float, block[4x1]/float)"


def test_a_file_of_the_first_version() -> None:
    """Its buffers hold what its weights unpack to."""
    state = {name: t for name, t in sc.load(VERSION_1).items() if name.endswith("weight")}
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 32, dtype=torch.bfloat16))
    for layer, shape in zip(model, ((16, 32), (32, 16)), strict=True):
        layer.register_buffer("dense", torch.empty(shape))
    sc.load(VERSION_1, model)
    for layer, name in zip(model, state, strict=True):
        assert same_bits(layer.weight.packed.unpack(), layer.dense)
        assert same_bits(state[name].packed.unpack(), layer.dense)
    assert [str(t.packed.format) for t in state.values()] == [
        "n_m[2:4]/float",
        "n_m[2:4]/int4[group=16]",
    ]
    assert [t.packed.exact for t in state.values()] == [True, False]


@torch.no_grad()
def test_compress_keeps_the_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, x = Pair(), torch.randn(3, 96)
    dense = copy.deepcopy(model)
    with caplog.at_level("INFO", "sparsecompile"):
        sc.compress(model)
    assert f"a.weight: {SUM}, exact" in caplog.text
    assert torch.equal(model.a.weight.stored.unpack(), dense.a.weight)
    assert model.a.weight.packed.exact
    path = tmp_path / "model.safetensors"
    sc.save(model, path)
    facts = json.loads(TensorFile.open(path).metadata[KEY])
    assert facts["version"] == 2
    assert facts["expressions"] == {"a.weight": SUM, "b.weight": SUM}
    check_compiled(sc.load(path, copy.deepcopy(dense).to("meta")), dense, x)


def check_compiled(model: Pair, dense: nn.Module, x: Tensor) -> None:
    """Leaves are read as they are, and let go of for layouts; eager calls read these."""
    unpacked: list[object] = []
    whole = StoredExpression.unpack
    backend = Packing()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredExpression, "unpack", lambda *_: unpacked.append(0) or whole(*_))
        found = torch.compile(model, backend=backend)(x)
    assert_no_worse(found, dense(x), dense.double()(x.double()))
    assert not unpacked
    report = backend.compiler.report
    assert [(n.weight, n.part, n.expression, n.packed) for n in report.nodes] == [
        (name, part, SUM, True) for name in ("a.weight", "b.weight") for part in (0, 1)
    ]
    for layer in (model.a, model.b):
        assert all(leaf.is_adopted for leaf in layer.weight.stored.expression.leaves())
    assert torch.equal(model.a.weight.packed.unpack(), dense.float().a.weight)


@torch.no_grad()
def test_merged_parts_move_into_one_layout() -> None:
    model, x, backend = Three(), torch.randn(3, 96), Packing()
    dense = copy.deepcopy(model)
    sc.compress(model)
    close(torch.compile(model, backend=backend)(x), dense(x))
    leaves = [layer.weight.stored.expression.leaves() for layer in (model.q, model.k)]
    for first, second in zip(*leaves, strict=True):
        assert first._home.layout is second._home.layout
    assert torch.equal(model(x), dense(x))


def test_parts_of_what_is_packed_otherwise() -> None:
    weight = sc.compress(sparse_(nn.Linear(96, 64))).weight
    with pytest.raises(sc.Reject, match=r"packed as n_m\[2:4\]/float, not as sum\(csr"):
        part(weight, "sum(csr/float, csr/float)", 0)


@torch.no_grad()
def test_through_inductor_and_other_dtypes() -> None:
    model, x = sc.compress(Pair()), torch.randn(3, 96).bfloat16()
    model.bfloat16()
    exact = copy.deepcopy(model)
    for layer in (exact.a, exact.b):
        layer.weight = nn.Parameter(layer.weight.stored.unpack().double(), False)
    want = exact.double()(x.double())
    assert_no_worse(torch.compile(model, backend="sparse")(x), model(x), want)


@torch.no_grad()
def test_what_replaces_an_expression() -> None:
    model, x, backend = sc.compress(Pair()), torch.randn(3, 96), Packing()
    compiled = torch.compile(model, backend=backend)
    close(compiled(x), model(x))
    model.a.weight = sc.compress(Pair()).a.weight
    close(compiled(x), model(x))
    assert backend.compiler.report.graphs == 1
    for other in (nn.Linear(96, 64), sc.compress(sparse_(nn.Linear(96, 64)))):
        model.a.weight = nn.Parameter(other.weight, False)
        close(compiled(x), model(x))


@torch.no_grad()
def test_a_function_of_an_expression_stays_as_it_is() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = sc.compress(blocks_and_columns(96, 96))
            self.tokens = nn.Embedding(96, 96)
            self.tokens.weight = self.inner.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.tokens(ids) @ self.inner.weight

    model, ids, backend = Transposed(), torch.tensor([3, 90]), Packing()
    close(torch.compile(model, backend=backend)(ids), model(ids))
    reasons = {node.reason for node in backend.compiler.report.nodes}
    assert reasons == {
        "the graph computes t(inner.weight) of a weight that is packed in the model",
        "the model holds the weight packed as an expression: only linears read those",
    }


def test_expressions_of_a_user(tmp_path: Path) -> None:
    """Low rank, nested, with integers: whatever `store` takes is saved, loaded and compiled."""
    float_, int8 = (sc.default_registry().format(f) for f in ("dense/float", "dense/int8"))
    u, v, rest = (torch.randn(shape) for shape in ((64, 8), (8, 96), (64, 96)))
    expression = sc.Sum(
        (
            sc.Leaf(sc.Format(sc.NM(2, 4), sc.Float()).pack(rest * sc.NM(2, 4).prune(rest))),
            sc.Product((sc.Leaf(float_.pack(u)), sc.Leaf(int8.pack(v)))),
        )
    )
    model = nn.Linear(96, 64)
    model.weight = nn.Parameter(sc.PackedTensor(store(expression)), requires_grad=False)
    dense = copy.deepcopy(model)
    dense.weight = nn.Parameter(expression.unpack(), requires_grad=False)
    path = tmp_path / "model.safetensors"
    sc.save(model, path)
    sc.load(path, model)
    text = "sum(n_m[2:4]/float, product(dense/float, dense/int8))"
    assert str(model.weight.stored.format) == text
    x, backend = torch.randn(5, 96), Packing()
    with torch.no_grad():
        found = torch.compile(model, backend=backend)(x)
        assert_no_worse(found, dense(x), dense.double()(x.double()))
    nodes = backend.compiler.report.nodes
    assert {n.part: (n.format, n.shape) for n in nodes} == {
        0: ("n_m[2:4]/float", (64, 96)),
        1: ("dense/float", (64, 8)),
        2: ("dense/int8", (8, 96)),
    }
    assert {n.dense_bytes for n in nodes} == {64 * 96 * 4}
    assert backend.compiler.report.dense_bytes == 64 * 96 * 4


@torch.no_grad()
def test_two_parts_in_one_format_are_two() -> None:
    weight = sparse_(nn.Linear(96, 64)).weight
    leaf = sc.Leaf(sc.Format(sc.NM(2, 4), sc.Float()).pack(weight))
    model, backend, x = nn.Linear(96, 64), Packing(), torch.randn(3, 96)
    model.weight = nn.Parameter(sc.PackedTensor(store(sc.Sum((leaf, leaf)))), False)
    close(torch.compile(model, backend=backend)(x), nn.functional.linear(x, weight * 2, model.bias))
    report = backend.compiler.report
    first, second = report.nodes
    assert report.packed_bytes == first.packed_bytes + second.packed_bytes
    assert report.dense_bytes == first.dense_bytes


def test_a_stack_in_a_file(tmp_path: Path) -> None:
    leaf = sc.Leaf(sc.Format(sc.CSR(), sc.Float()).pack(torch.eye(4, 6)))
    holder = nn.Module()
    holder.experts = nn.Parameter(sc.PackedTensor(store(sc.Stack((leaf, leaf)))), False)
    sc.save(holder, tmp_path / "experts.safetensors")
    experts = sc.load(tmp_path / "experts.safetensors")["experts"]
    assert experts.shape == (2, 4, 6)
    assert torch.equal(experts + 0, torch.eye(4, 6).expand(2, 4, 6))


@pytest.mark.parametrize(
    ("tensor", "message", "change"),
    [
        (
            "weight::0",
            r"is packed as block\[16x16\]/float: sum\(csr, block\[4x1\]\) needs csr/float",
            lambda facts: facts["expressions"].update(weight="sum(csr, block[4x1])"),
        ),
        (
            "weight",
            "a product of 64x96 and 64x96: n x r and r x k are needed",
            lambda facts: facts["expressions"].update(weight=SUM.replace("sum", "product")),
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    tensor: str, message: str, change: Callable[[Any], object], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    sc.save(sc.compress(blocks_and_columns(64, 96)), path)
    file = TensorFile.open(path)
    facts = json.loads(file.metadata[KEY])
    change(facts)
    write_tensors(path, {n: file.map(n) for n in file.entries}, {KEY: json.dumps(facts)})
    with pytest.raises(sc.FileError, match=message) as caught:
        sc.load(path)
    assert caught.value.tensor == tensor


def test_a_weight_that_is_called_as_a_part_of_another(tmp_path: Path) -> None:
    model = sc.compress(blocks_and_columns(64, 96))
    model.register_parameter("weight::0", sc.compress(sparse_(nn.Linear(96, 64))).weight)
    with pytest.raises(sc.SparseCompileError, match="two tensors would be called weight::0::val"):
        sc.save(model, tmp_path / "model.safetensors")


def test_leaves_are_what_single_weights_are() -> None:
    model = sc.compress(blocks_and_columns(64, 96))
    stored = model.weight.stored
    assert isinstance(stored, StoredExpression)
    assert all(isinstance(leaf, Stored) for leaf in stored.expression.leaves())
    assert copy.deepcopy(model).weight.stored is stored
