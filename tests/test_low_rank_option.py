"""`low_rank` on request: a rank for all weights or some, and what is refused."""

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
from sparsecompile.kernels.codegen import Device
from sparsecompile.passes.find_low_rank import FindLowRank
from sparsecompile.structures.low_rank import LowRank
from sparsecompile.testing import apply_passes, captured


def thin(n: int, k: int, rank: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A linear whose weight has a rank, but for rounding."""
    linear = nn.Linear(k, n, dtype=dtype).requires_grad_(False)
    linear.weight.copy_(torch.randn(n, rank) @ torch.randn(rank, k))
    return linear


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
