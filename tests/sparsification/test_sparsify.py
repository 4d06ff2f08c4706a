"""sparsify: which weights it changes, what it reports, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparsification.small import ids, rows, stack, transformer
from torch import nn
from torch.nn.utils import prune

import sparsecompile as sc
from sparsecompile.sparsification.methods.sparsegpt import SparseGPT


def zeros(module: nn.Module) -> float:
    return float((module.weight == 0).float().mean())  # type: ignore[operator, union-attr]


def test_a_model_becomes_sparse_in_place_and_is_packed_as_it_is() -> None:
    model = stack().requires_grad_(False).train()
    before = [p.data_ptr() for p in model.parameters()]
    x = torch.cat(rows())
    dense = model(x)
    report = sc.sparsify(model, "2:4", calibration=rows())
    assert [p.data_ptr() for p in model.parameters()] == before
    assert model.training
    assert [w.name for w in report.weights] == ["0", "2", "4"]
    assert report.kept == 0.5
    assert report.blocks == 3
    off = (model(x) - dense).norm() / dense.norm()
    assert 0.01 < float(off) < 0.5
    compiled = sc.explain(model, x)
    assert [node.format for node in compiled.nodes] == ["n_m[2:4]/float"] * 3


def test_patterns_by_name() -> None:
    model = stack()
    sc.sparsify(model, {"0": "2:4", "2": None, "*": "unstructured(0.75)"}, calibration=rows())
    assert [zeros(model[i]) for i in (0, 2, 4)] == [0.5, 0.0, 0.75]


def test_heads_and_tied_weights_are_left_alone_unless_asked_for() -> None:
    for tied in (True, False):
        model = transformer("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=tied)
        report = sc.sparsify(model, "2:4", method="magnitude")
        assert len(report.weights) == 21
        assert zeros(model.lm_head) < 0.1
    report = sc.sparsify(model, {"lm_head": "2:4"}, method="wanda", calibration=ids())
    assert [w.name for w in report.weights] == ["lm_head"]
    assert zeros(model.lm_head) == 0.5
    tied_stack = nn.ModuleList([nn.Embedding(16, 8), nn.Linear(8, 16, bias=False), nn.Linear(8, 8)])
    tied_stack[1].weight = tied_stack[0].weight
    report = sc.sparsify(tied_stack, "2:4", method="magnitude")
    assert [w.name for w in report.weights] == ["2"]


def test_a_weight_of_two_linears_is_sparsified_once() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[1].weight = model[0].weight
    assert len(sc.sparsify(model, "2:4", calibration=rows()).weights) == 1


def test_one_linear_alone() -> None:
    model = nn.Linear(32, 16)
    report = sc.sparsify(model, "2:4", calibration=rows())
    assert zeros(model) == 0.5
    assert report.blocks == 1


def test_methods_with_options() -> None:
    found = []
    for damp in (0.01, 10.0):
        model = stack()
        sc.sparsify(model, "2:4", method=SparseGPT(damp=damp), calibration=rows())
        found.append(model[0].weight.detach())
    assert not torch.equal(*found)


def test_biases_are_corrected_on_request() -> None:
    x = [batch + 1 for batch in rows()]
    whole = torch.cat(x).double()
    for correct in (False, True):
        model = nn.Sequential(nn.Linear(32, 16))
        exact = nn.functional.linear(whole, model[0].weight.double(), model[0].bias.double())
        sc.sparsify(model, "2:4", method="wanda", calibration=x, correct_bias=correct)
        now = nn.functional.linear(whole, model[0].weight.double(), model[0].bias.double())
        off = (now - exact).mean(0).abs().max()
        assert bool(off < 1e-6 * exact.abs().max()) == correct


def test_report() -> None:
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    report = sc.sparsify(model, {"*.mlp.*": "2:4", "*.q_proj": "int8"}, calibration=ids())
    text = str(report)
    assert "12 weights sparsified in 3 parts by SparseGPT(" in text
    assert re.search(r"model\.layers\.\*\.mlp\.gate_proj +3 +64 x 32 +2:4 +50\.0% ", text)
    assert max(map(len, text.splitlines())) <= 100
    known = json.loads(report.to_json())
    assert known["schema"] == 1
    gate = next(w for w in known["weights"] if w["name"] == "model.layers.0.mlp.gate_proj")
    assert gate["shape"] == [64, 32]
    assert gate["kept"] == 0.5
    assert 0 < gate["error"] < 1
    assert gate["dense_bytes"] == 64 * 32 * 4
    assert gate["packed_bytes"] == 64 * 32 * 2 + 64 * 4
    assert report.packed_bytes < report.dense_bytes


def _meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(8, 8))


def _pruned() -> nn.Module:
    model = stack()
    prune.l1_unstructured(model[2], "weight", 0.5)
    return model


def _broken() -> nn.Module:
    model = stack()
    model[4].weight.data[3, 7] = torch.nan
    return model


def _packed() -> nn.Module:
    model = stack()
    sc.sparsify(model, "2:4", method="magnitude")
    return sc.compress(model)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.relu, "sparsify takes a module, not builtin_function_or_method"),
        (_meta, "the weight of '0' is on the meta device, which holds no values: load the"),
        (_pruned, r"2: its weight is computed: torch\.nn\.utils\.prune\.remove"),
        (_broken, "the weight of '4' holds nan in row 3, column 7: sparsify takes finite"),
        (_packed, "the weight of '0' is PackedTensor of torch.float32, which has no values that"),
    ],
)
def test_models_that_cannot_be_sparsified(make: Callable[[], Any], why: str) -> None:
    with pytest.raises(sc.ModelError, match=why):
        sc.sparsify(make(), "2:4", method="magnitude")


@pytest.mark.parametrize(
    ("given", "option", "why"),
    [
        ({"pattern": 3}, "pattern", "must be a string such as '2:4', or a mapping"),
        ({"pattern": {"0": 3}}, "pattern", "must be a string such as '2:4', or a mapping"),
        ({"pattern": {"1": "2:4"}}, "pattern", "'1' of option 'pattern' matches no nn.Linear"),
        (
            {"pattern": "3:7"},
            "pattern",
            r"'3:7' does not divide the 64 x 32 weight of '0', 64 x 35",
        ),
        (
            {"pattern": "block(48,8,0.5)"},
            "pattern",
            "does not divide the 64 x 32 weight of '0', 96",
        ),
        ({"calibration": None}, "calibration", "method 'sparsegpt' needs calibration: a list of"),
        (
            {"calibration": None, "method": "magnitude", "correct_bias": True},
            "calibration",
            "correct_bias needs calibration",
        ),
        ({"calibration": []}, "calibration", "calibration has no batch: give one at least"),
        (
            {"calibration": [*rows(), torch.randn(2, 3)]},
            "calibration",
            "the model does not run on batch 4 of the calibration: RuntimeError: .*mat1 and mat2",
        ),
        (
            {"calibration": [{"ids": 3}]},
            "calibration",
            "does not run on batch 0 of the calibration: TypeError: .*a batch is a tensor, a tuple",
        ),
    ],
)
def test_what_cannot_be_used(given: dict[str, Any], option: str, why: str) -> None:
    model = stack()
    before = [p.detach().clone() for p in model.parameters()]
    asked = {"pattern": "2:4", "calibration": rows(), **given}
    with pytest.raises(sc.OptionError, match=why) as caught:
        sc.sparsify(model, asked.pop("pattern"), **asked)
    assert caught.value.option == option
    assert all(map(torch.equal, before, model.parameters()))


def test_no_such_method() -> None:
    with pytest.raises(sc.RegistrationError, match="did you mean 'sparsegpt'"):
        sc.sparsify(stack(), "2:4", method="sparsgpt", calibration=rows())


def test_activations_that_are_not_finite_are_named() -> None:
    class Inf(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x - x)

    model = nn.Sequential(nn.Linear(32, 32), Inf(), nn.Linear(32, 8))
    with pytest.raises(sc.OptionError, match="what '2' reads in calibration holds NaN or infinity"):
        sc.sparsify(model, "2:4", calibration=rows())
