"""PackedTensor: what torch does with a packed weight that stands where the dense one was."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from packing import sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.weights.stored import Stored, find_stored

FORMAT = sc.Format(sc.NM(2, 4), sc.Float())


def packed_weight(n: int = 16, k: int = 32, dtype: torch.dtype = torch.float32) -> sc.PackedTensor:
    weight = torch.randn(n, k).to(dtype)
    return sc.PackedTensor(Stored(FORMAT.pack(weight * sc.NM(2, 4).prune(weight))))


def packed_linear(codec: sc.Codec | None = None) -> nn.Linear:
    linear = sparse_(nn.Linear(32, 16)).requires_grad_(False)
    packed = sc.Format(sc.NM(2, 4), codec or sc.Float()).pack(linear.weight)
    linear.weight = nn.Parameter(sc.PackedTensor(Stored(packed)), requires_grad=False)
    return linear


def test_it_computes_what_its_dense_weight_computes() -> None:
    weight, x = packed_weight(), torch.randn(3, 32)
    dense = weight.packed.unpack()
    for function in (
        lambda w: F.linear(x, w),
        lambda w: x @ w.t(),
        lambda w: w * 2,
        lambda w: w.sum(),
        lambda w: w[3:5, 1],
        lambda w: torch.cat((w, w)),
        lambda w: torch.stack([w], dim=0),
    ):
        assert torch.equal(function(weight), function(dense))
    with torch.inference_mode():
        assert torch.equal(F.linear(x, weight), F.linear(x, dense))


def test_embedding_reads_the_rows_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = packed_weight()
    dense = weight.packed.unpack()
    monkeypatch.setattr(Stored, "unpack", None)
    for rows in (torch.tensor([[3, 0], [15, 3]]), torch.tensor(2), torch.tensor([], dtype=int)):
        assert torch.equal(F.embedding(rows, weight), F.embedding(rows, dense))
    assert torch.equal(F.embedding(torch.tensor([7]).int(), weight), dense[7:8])
    with pytest.raises(IndexError, match="rows 3 to 16 of 16"):
        F.embedding(torch.tensor([3, 16]), weight)


def test_copies_share_the_packed_weight() -> None:
    linear = packed_linear()
    twin = copy.deepcopy(linear)
    assert isinstance(twin.weight, sc.PackedTensor)
    assert isinstance(twin.weight, nn.Parameter)
    for shared in (twin.weight, linear.weight.detach(), linear.weight.clone(), linear.weight.data):
        assert shared.stored is linear.weight.stored
    assert repr(linear.weight) == "PackedTensor((16, 32), torch.float32, 'n_m[2:4]/float')"
    assert list(linear.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("codec", [sc.Float(), sc.Int8(), sc.Int4(32)], ids=str)
def test_a_model_in_another_dtype_stays_packed(codec: sc.Codec) -> None:
    linear, x = packed_linear(codec), torch.randn(3, 32)
    dense = linear.weight.packed.unpack()
    linear.bfloat16()
    assert isinstance(linear.weight, sc.PackedTensor)
    assert linear.weight.dtype == torch.bfloat16
    assert torch.equal(linear.weight.packed.unpack(), dense.bfloat16())
    assert torch.equal(linear(x.bfloat16()), F.linear(x.bfloat16(), dense.bfloat16(), linear.bias))
    assert linear.weight.to(torch.float64).dtype == torch.float64
    assert not isinstance(linear.weight.to("meta"), sc.PackedTensor)


def test_pickles_hold_the_dense_weight() -> None:
    linear, file = packed_linear(), io.BytesIO()
    torch.save(linear.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file)
    assert type(loaded["weight"]) is Tensor
    assert torch.equal(loaded["weight"], linear.weight.packed.unpack())
    whole = io.BytesIO()
    torch.save(linear.weight, whole)
    whole.seek(0)
    assert isinstance(torch.load(whole), nn.Parameter)


@torch.no_grad()
def test_writes_are_refused() -> None:
    linear = packed_linear()
    with pytest.raises(sc.PackedWeightError, match="mul_ would write into a weight") as caught:
        linear.weight.mul_(2)
    assert (caught.value.operation, caught.value.format) == ("mul_", "n_m[2:4]/float")
    with pytest.raises(sc.PackedWeightError, match="data would write"):
        linear.weight.data = torch.zeros(16, 32)
    with pytest.raises(sc.PackedWeightError, match="mm would write"):
        torch.mm(torch.randn(16, 4), torch.randn(4, 32), out=linear.weight)
    state = {name: torch.zeros_like(t) for name, t in nn.Linear(32, 16).state_dict().items()}
    with pytest.raises(RuntimeError, match=r"load_state_dict\(..., assign=True\)"):
        linear.load_state_dict(state)
    linear.load_state_dict(state, assign=True)
    assert not linear.weight.any()


def test_a_dense_model_takes_a_packed_state() -> None:
    linear, other = packed_linear(), nn.Linear(32, 16)
    other.load_state_dict(linear.state_dict())
    assert type(other.weight) is nn.Parameter
    assert torch.equal(other.weight, linear.weight.packed.unpack())


def test_gradients_reach_inputs_and_what_requires_them() -> None:
    linear, x = packed_linear(), torch.randn(3, 32, requires_grad=True)
    linear(x).sum().backward()
    assert torch.equal(x.grad, linear.weight.packed.unpack().sum(0).expand(3, -1))
    linear.weight.requires_grad_()
    linear(x).sum().backward()
    assert torch.allclose(linear.weight.grad, x.detach().sum(0).expand(16, -1))


def test_a_number_without_a_weight() -> None:
    weight = packed_weight()
    handle = weight.stored.handle
    assert find_stored(handle) is weight.stored
    del weight
    with pytest.raises(sc.SparseCompileError, match=f"no packed weight {handle} in this process"):
        find_stored(handle)


def test_torch_finds_nothing_wrong_with_its_ops() -> None:
    weight = packed_weight()
    handle = torch.tensor([weight.stored.handle])
    for op, *args in (
        (torch.ops.sparsecompile.stored_weight.default, [16, 32]),
        (torch.ops.sparsecompile.stored_rows.default, torch.tensor([[3]]), 32),
    ):
        torch.library.opcheck(op, (handle, *args, torch.float32))
