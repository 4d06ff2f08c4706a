"""`low_rank`: weights that are products of thin ones, and those that are made so on request."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.formats.occupancy import FLOAT_DTYPES
from sparsecompile.kernels.codegen import Device
from sparsecompile.passes.find_low_rank import FindLowRank
from sparsecompile.structures.low_rank import LowRank, rank_for, relative_error
from sparsecompile.testing import apply_passes, assert_no_worse, captured
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


def near(model: nn.Module, ranks: dict[str, int]) -> nn.Module:
    """The model with the nearest weights of these ranks."""
    found = copy.deepcopy(model)
    for name, rank in ranks.items():
        weight = found.get_parameter(name)
        weight.copy_(LowRank(rank, lossy=True).split(weight).evaluate(Tensor.float))
    return found


@torch.no_grad()
def test_a_rank_that_is_asked_for() -> None:
    model, x = MLP(96).requires_grad_(False), torch.randn(5, 96)
    backend = Packing(low_rank=0.25)
    result = torch.compile(model, backend=backend)(x)
    close(result, near(model, {"up.weight": 16, "down.weight": 16})(x))
    nodes = backend.compiler.report.nodes
    assert [(n.weight, n.part, n.shape, n.lossy) for n in nodes] == [
        ("up.weight", 1, (16, 96), "low_rank 0.25"),
        ("up.weight", 0, (64, 16), "low_rank 0.25"),
        ("down.weight", 1, (16, 64), "low_rank 0.25"),
        ("down.weight", 0, (96, 16), "low_rank 0.25"),
    ]
    assert all(0.1 < (n.error or 0) < 1 for n in nodes)
    assert all(n.packed for n in nodes)
    text = str(backend.compiler.report)
    assert "2 of 2 linears packed" in text
    assert "low_rank[16,lossy], a kernel call for each part of\n  up, down" in text
    assert "lossy: low_rank 0.25, relative error " in text
    assert " on 2 weights: the compiled model computes" in text.replace("\n", " ")


@torch.no_grad()
def test_by_energy_and_by_name() -> None:
    model, x = MLP(96), torch.randn(5, 96)
    model.up = thin(64, 96, 9)
    model.up.weight.add_(1e-4 * torch.randn(64, 96))
    backend = Packing(low_rank={"*up": {"energy": 0.999}, "down": 0.1})
    result = torch.compile(model, backend=backend)(x)
    close(result, near(model, {"up.weight": 9, "down.weight": 6})(x))
    assert [n.lossy for n in backend.compiler.report.nodes] == [
        *["low_rank {'energy': 0.999}"] * 2,
        *["low_rank 0.1"] * 2,
    ]


@torch.no_grad()
def test_factors_are_quantised() -> None:
    model, x = nn.Linear(128, 256), torch.randn(5, 128)
    backend = Packing(low_rank=0.25, quantize="int8-weight-only")
    result = torch.compile(model, backend=backend)(x)
    want = near(model, {"weight": 32})(x)
    assert (result - want).norm() < 0.05 * want.norm()
    nodes = backend.compiler.report.nodes
    assert {n.format for n in nodes} == {"dense/int8"}
    assert {n.lossy for n in nodes} == {"low_rank 0.25, quantize int8"}


@torch.no_grad()
def test_pruned_weights_are_factored_as_pruned() -> None:
    model, x = nn.Linear(128, 256), torch.randn(5, 128)
    backend = Packing(low_rank=0.25, prune="2:4")
    result = torch.compile(model, backend=backend)(x)
    close(result, near(sparse_(model), {"weight": 32})(x))
    assert {n.lossy for n in backend.compiler.report.nodes} == {"prune 2:4, low_rank 0.25"}


@torch.no_grad()
def test_a_changed_weight_is_factored_anew() -> None:
    model, x, backend = nn.Linear(128, 256), torch.randn(5, 128), Packing(low_rank=0.25)
    fast = torch.compile(model, backend=backend)
    fast(x)
    model.weight.copy_(torch.randn(256, 128))
    close(fast(x), near(model, {"weight": 32})(x))


@torch.no_grad()
def test_through_inductor() -> None:
    model, options = MLP(96), {"low_rank": 0.25, "tune": "off"}
    fast = torch.compile(model, backend="sparse", dynamic=True, options=options)
    want = near(model, {"up.weight": 16, "down.weight": 16})
    for rows in (2, 5, 70):
        x = torch.randn(rows, 96)
        close(fast(x), want(x))


def test_the_tuner_chooses_the_kernels_of_factors() -> None:
    model, x = nn.Linear(512, 512), torch.randn(3, 512)
    backend = Packing(low_rank=0.25, tune="fast")
    with torch.no_grad():
        result = torch.compile(model, backend=backend)(x)
        close(result, near(model, {"weight": 128})(x))
    assert {n.shape for n in backend.compiler.report.nodes} == {(512, 128), (128, 512)}
    assert all(n.trials for n in backend.compiler.report.nodes)


CASES = [(nn.Linear(128, 96), {"low_rank": 0.1}), (thin(96, 128, 10), {})]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_a_gpu_has_dense_factors(model: nn.Module, options: dict[str, Any]) -> None:
    """Where nothing is measured torch's linear of a factor is no slower."""
    given = {"target": "sm_90", "tune": "off", **options}
    report = sc.explain(model, torch.randn(5, 128), **given)
    assert [(node.shape, node.packed) for node in report.nodes] == [
        ((10, 128), False),
        ((96, 10), False),
    ]
    assert "dense_0, dense_1" in report.after


@pytest.mark.parametrize(("model", "options"), CASES)
@torch.no_grad()
def test_without_a_kernel_for_dense_weights(
    model: nn.Module, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors that were asked for are made once and left to torch; others are not looked at."""

    def check(device: Device, spec: sc.KernelSpec) -> None:
        raise sc.Reject(f"no kernel for {spec.format}")

    monkeypatch.setattr(Device, "check", check)
    backend = Packing(**options)
    result = torch.compile(model, backend=backend)(torch.ones(5, 128))
    assert backend.packed == []
    for node in backend.compiler.report.nodes:
        assert node.reason.endswith("no kernel for dense/float") or not options
    assert ("dense_0, dense_1" in backend.compiler.report.after) == bool(options)
    close(result / 10, near(model, {"weight": 10})(torch.ones(5, 128)) / 10)


@torch.no_grad()
def test_without_the_pass_that_packs_linears() -> None:
    model, x = nn.Linear(128, 256), torch.randn(5, 128)
    backend = Packing(low_rank=0.25, passes={"without": ["pack_linear"]})
    close(torch.compile(model, backend=backend)(x), near(model, {"weight": 32})(x))
    assert {node.reason for node in backend.compiler.report.nodes} == {"no pass looked at it"}


def refusal(model: nn.Module, recipe: Any, **options: Any) -> str:
    gm, inputs = captured(model, torch.randn(3, 96), **options)
    return apply_passes([FindLowRank(recipe)], gm, inputs).rewrites[0].reason


def test_weights_that_are_not_factored() -> None:
    linear = nn.Linear(96, 64).requires_grad_(False)
    assert refusal(linear, 0.7) == (
        "factors of 64 x 96 of rank 45 are no smaller: up to 38 they are"
    )
    assert refusal(linear, {"energy": 1.0}).startswith("factors of 64 x 96 of rank 39 are no")
    assert refusal(nn.Linear(96, 1).requires_grad_(False), {"energy": 0.1}) == (
        "factors of 1 x 96 of rank 1 are no smaller: up to 0 they are"
    )
    assert refusal(linear, {"x": 0.5}).startswith("no pattern of options['low_rank'] matches ")
    packed = sc.compress(sparse_(nn.Linear(96, 64)))
    assert refusal(packed, 0.1) == (
        "the model holds the weight packed as n_m[2:4]/float: it cannot be factored"
    )


def test_a_second_run_changes_nothing() -> None:
    gm, inputs = captured(nn.Linear(96, 64).requires_grad_(False), torch.randn(3, 96))
    edit = apply_passes([FindLowRank(0.1)], gm, inputs)
    again = apply_passes([FindLowRank(0.1)], edit.module, inputs)
    assert str(again.module.graph) == str(edit.module.graph)
    assert {r.reason for r in again.rewrites} == {"it is a factor of a low rank already"}


def test_strict_wants_what_was_asked_for() -> None:
    with pytest.raises(sc.RejectedError, match="are no smaller"):
        sc.explain(nn.Linear(96, 64), torch.randn(3, 96), low_rank=0.9, strict=True)


@pytest.mark.parametrize(
    "given", [0, 0.0, -0.5, 1.5, True, {"energy": 0}, {"energy": 2}, {"energy": "much"}, {"a": 7}]
)
def test_ranks_that_cannot_be(given: Any) -> None:
    recipe = given["a"] if isinstance(given, dict) and "a" in given else given
    with pytest.raises(sc.OptionError) as raised:
        sc.Compiler(low_rank=given)
    assert f"cannot make {recipe!r} of a rank; write a share" in str(raised.value)


@pytest.mark.parametrize("given", ["0.5", ["*"], {"*": "0.5"}, {3: 0.5}, {"*": {"rank": 3}}])
def test_what_is_no_rank(given: Any) -> None:
    with pytest.raises(sc.OptionError, match="option 'low_rank' must be a share of the rank such"):
        sc.Compiler(low_rank=given)


def test_patterns_have_to_match() -> None:
    with pytest.raises(sc.OptionError, match=r"pattern 'upp' of option 'low_rank' matches no"):
        sc.explain(MLP(), torch.randn(3, 32), low_rank={"upp": 0.5})


@torch.no_grad()
def test_compress_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a low rank that was found, and of one that was asked for."""
    for options, rank in (({}, 6), ({"low_rank": 0.25}, 24)):
        dense = nn.Sequential(thin(96, 128, 6) if rank == 6 else nn.Linear(128, 96))
        model, x = copy.deepcopy(dense), torch.randn(3, 128)
        with caplog.at_level(logging.INFO, "sparsecompile"):
            sc.compress(model, **options)
        assert "0.weight: product(dense/float, dense/float), rounded" in caplog.text
        caplog.clear()
        assert model[0].weight.stored.shape == (96, 128)
        assert [leaf.shape for leaf in model[0].weight.stored.expression.leaves()] == [
            (96, rank),
            (rank, 128),
        ]
        want = near(dense, {"0.weight": rank})(x)
        close(model(x) / 10, want / 10)
        sc.save(model, tmp_path / "model.safetensors")
        loaded = sc.load(tmp_path / "model.safetensors", copy.deepcopy(dense).to("meta"))
        assert not loaded[0].weight.packed.exact
        backend = Packing()
        close(torch.compile(loaded, backend=backend)(x) / 10, want / 10)
        assert {node.part for node in backend.compiler.report.nodes} == {0, 1}
        torch._dynamo.reset()
