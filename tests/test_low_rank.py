"""`low_rank`: weights that are products of thin ones are found, and packed so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from packing import Packing, close
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.structures.low_rank import LowRank, rank_for, relative_error
from sparsecompile.testing import assert_no_worse
from sparsecompile.weights import parts
from sparsecompile.weights.parts import part


def thin(n: int, k: int, rank: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A linear whose weight has a rank, but for rounding."""
    linear = nn.Linear(k, n, dtype=dtype).requires_grad_(False)
    linear.weight.copy_(torch.randn(n, rank) @ torch.randn(rank, k))
    return linear


def find(weight: Tensor) -> LowRank:
    return LowRank().find(sc.Occupancy(weight))


def check(model: nn.Module, x: Tensor, backend: Packing) -> Any:
    """As exact as eager, compiled."""
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        assert_no_worse(fast(x), model(x), copy.deepcopy(model).double()(x.double()))
    return fast


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize(("n", "k", "rank"), [(64, 96, 1), (300, 200, 20), (400, 500, 80)])
def test_the_rank_is_found(n: int, k: int, rank: int, dtype: torch.dtype) -> None:
    weight = thin(n, k, rank, dtype).weight
    found = find(weight)
    assert found == LowRank(rank)
    u, v = found.split(weight).leaves()
    assert (u.shape, v.shape) == ((n, rank), (rank, k))
    assert relative_error(weight, found.split(weight)) <= found.tolerance(dtype)


def test_small_rows_are_as_exact_as_large_ones() -> None:
    """Those here have a rank of their own."""
    weight = torch.cat((thin(100, 300, 4).weight, 1e-12 * thin(100, 300, 6).weight))
    assert find(weight) == LowRank(10)
    assert LowRank(10).split(weight)


def test_rows_without_values_count_for_nothing() -> None:
    weight = thin(200, 300, 10).weight
    weight[::2] = 0
    assert find(weight) == LowRank(10)


def beyond(rank: int) -> Tensor:
    """Of a low rank where one looks, and elsewhere not."""
    weight = thin(400, 400, rank).weight
    weight[:, -40:] = torch.randn(400, 40)
    return weight


def test_what_was_not_looked_at_is_checked() -> None:
    weight = beyond(4)
    found = find(weight)
    with pytest.raises(sc.Reject, match=r"^column 3\d\d of the product is .* off, .* may be"):
        found.split(weight)


REFUSED = [
    (torch.randn(200, 300), "the rank of 74 x 74 of it is full: a lower one can be asked for"),
    (torch.randn(3, 1), "3 x 1 is no larger than factors of rank 1"),
    (torch.randn(0, 5), "0 x 5 is no larger than factors of rank 1"),
    (torch.zeros(200, 300), "no values in the rows and columns that were looked at"),
]


@pytest.mark.parametrize(("weight", "reason"), REFUSED)
def test_ranks_that_are_not_found(weight: Tensor, reason: str) -> None:
    with pytest.raises(sc.Reject) as raised:
        find(weight)
    assert raised.value.reason == reason


def test_rows_that_are_off_are_named() -> None:
    weight = thin(200, 300, 3).weight
    weight[7] = 1e-3 * torch.randn(300)
    weight[:, 5] *= 1e4
    with pytest.raises(sc.Reject, match=r"of the product is .* of its norm off"):
        LowRank(3).split(weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float) -> None:
    weight = thin(200, 300, 3).weight
    weight[1, 1] = value
    with pytest.raises(sc.Reject, match="holds values that are not finite"):
        LowRank(3).split(weight)


def test_a_rank_that_a_weight_has_not() -> None:
    for rank in (0, 9):
        with pytest.raises(sc.Reject, match=f"{rank} is no rank of 8 x 100"):
            LowRank(rank).split(torch.randn(8, 100))


def test_names() -> None:
    registry = sc.default_registry()
    for each in (LowRank(), LowRank(3), LowRank(3, lossy=True)):
        assert registry.decomposition(str(each)) == each
    assert str(LowRank(3, lossy=True)) == "low_rank[3,lossy]"
    for text in ("0", "lossy", "3,exact"):
        with pytest.raises(sc.RegistrationError, match=r"a rank is needed, as in low_rank\[64\]"):
            registry.decomposition(f"low_rank[{text}]")


def test_the_lossy_one_is_the_nearest() -> None:
    weight = torch.randn(90, 60)
    values = torch.linalg.svdvals(weight)
    best = float(values[10:].norm() / values.norm())
    found = relative_error(weight, LowRank(10, lossy=True).split(weight))
    assert best <= found <= 1.02 * best


@pytest.mark.parametrize("energy", [0.1, 0.9, 0.999, 1.0])
def test_ranks_by_energy(energy: float) -> None:
    weight = torch.randn(300, 200) * torch.logspace(0, -3, 200)
    values = torch.linalg.svdvals(weight.double()).square().cumsum(0)
    needed = int((values < energy * values[-1] * (1 - 1e-6)).sum()) + 1
    found = rank_for(weight, energy)
    assert min(needed, 120) <= found <= min(needed + 2, 120)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 3, 17, 64, 130])
def test_a_low_rank_is_packed_as_factors(rows: int, dtype: torch.dtype) -> None:
    model, backend = thin(96, 128, 6, dtype), Packing()
    check(model, torch.randn(rows, 128).to(dtype), backend)
    nodes = backend.compiler.report.nodes
    assert {n.part: (n.shape, n.expression, n.lossy) for n in nodes} == {
        0: ((96, 6), "low_rank[6]: product(dense/float, dense/float)", ""),
        1: ((6, 128), "low_rank[6]: product(dense/float, dense/float)", ""),
    }


def test_what_is_looked_for_is_listed() -> None:
    (node,) = sc.explain(nn.Linear(96, 64), torch.randn(3, 96), tune="off").nodes
    found = {finding.format: finding.reason for finding in node.findings}
    assert found["low_rank"].startswith("the rank of ")
    assert found["outlier_columns"] == "the weight holds no zeros"


@torch.no_grad()
def test_a_weight_of_another_rank_runs_dense() -> None:
    model, x, backend = thin(96, 128, 6), torch.randn(3, 128), Packing()
    fast = check(model, x, backend)
    model.weight.copy_(thin(96, 128, 5).weight)
    close(fast(x) / 10, model(x) / 10)
    assert not backend.compiler.report.misfits
    model.weight.copy_(torch.randn(96, 128))
    close(fast(x), model(x))
    assert "of the product is" in backend.compiler.report.misfits["weight"]


def test_parts_of_one_weight_are_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    split, made = LowRank.split, []
    monkeypatch.setattr(LowRank, "split", lambda *args: made.append(0) or split(*args))
    weight = thin(96, 128, 6).weight
    name = sc.formats.names.remember_decomposition(LowRank(6))
    u, v = part(weight, name, 0), part(weight, name, 1)
    assert len(made) == 1
    assert not any(parts._LEFT.values())
    torch.testing.assert_close(u @ v, weight)
    assert torch.equal(part(weight, name, 0), u)
    assert len(made) == 2
    weight.mul_(2)
    v, u = part(weight, name, 1), part(weight, name, 0)
    torch.testing.assert_close(u @ v, weight)
    with torch.inference_mode():
        assert torch.equal(part(weight.clone(), name, 0), part(weight, name, 0))
