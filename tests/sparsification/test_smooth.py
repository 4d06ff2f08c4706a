"""smooth: the model computes what it did, and 8 bits lose less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparsification.small import ids, transformer
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.sparsification.pattern import Pattern
from sparsecompile.sparsification.smooth import Smoothed


def outliers() -> Any:
    """A tiny Llama whose norms make a few columns a hundred times as large as the others."""
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight[:3] *= 100
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.gate_proj):
            linear.weight[:, :3] /= 100
    return model


def smoothed(model: nn.Module, alpha: float = 0.5) -> tuple[Smoothed, ...]:
    return sc.sparsify(model, {"*": None}, smooth=alpha, calibration=ids()).smoothed


@torch.no_grad()
def test_int8_loses_less_where_activations_have_outliers() -> None:
    x = torch.randn(256, 64)
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64))
    model[0].weight[:2] *= 100
    model[1].weight[:, :2] /= 100
    exact = model(x)

    def off() -> float:
        weight = Pattern.parse("int8").round(model[1].weight)
        found = nn.functional.linear(sc.quantize_activation(model[0](x)), weight, model[1].bias)
        return float((found - exact).norm() / exact.norm())

    before = off()
    sc.sparsify(model, {"*": None}, smooth=0.5, calibration=[x])
    assert 5 * off() < before


@torch.no_grad()
def test_what_the_model_computes_stays() -> None:
    x = ids()[0]
    model, exact = outliers(), outliers().double()(x, use_cache=False).logits
    eager = float((model(x, use_cache=False).logits - exact).abs().max())
    found = smoothed(model)
    ours = float((model(x, use_cache=False).logits - exact).abs().max())
    assert ours <= 2 * eager + torch.finfo(torch.float32).eps * float(exact.abs().max())
    assert found[0].linears == tuple(
        f"model.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v")
    )
    before, after = outliers(), model
    assert not torch.equal(
        before.model.layers[0].self_attn.q_proj.weight,
        after.model.layers[0].self_attn.q_proj.weight,
    )


@pytest.mark.parametrize(
    ("model", "config", "why"),
    [
        ("BertModel", "BertConfig", "add reads it, too"),
        (
            "Gemma3ForCausalLM",
            "Gemma3TextConfig",
            "Gemma3RMSNorm is not proportional to its weight",
        ),
    ],
)
def test_norms_that_are_left_as_they_are(model: str, config: str, why: str) -> None:
    made = transformer(model, config)
    before = {name: p.clone() for name, p in made.named_parameters()}
    found = smoothed(made)
    assert found
    assert all(norm.reason for norm in found)
    assert any(why in norm.reason for norm in found), found
    assert all(torch.equal(p, before[name]) for name, p in made.named_parameters())


class Reads(nn.Module):
    """A norm that a linear reads, and something else."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.norm, self.linear, self.how = nn.LayerNorm(16), nn.Linear(16, 16), how
        if how == "tied":
            self.other = nn.Linear(16, 16)
            self.other.weight = self.linear.weight

    def forward(self, x: Tensor) -> Any:
        y = self.norm(x)
        if self.how == "twice":
            x = self.norm(x)
        z = self.linear(y)
        if self.how == "cat":
            return torch.cat([y, z])
        if self.how == "output":
            return y, z
        if self.how == "tied":
            return z + self.other(z)
        return z + y.T.sum() if self.how == "transposed" else z + y.shape[0] - y.size(0)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("alone", ""),
        ("cat", "cat reads it, too"),
        ("output", "the model's output reads it, too"),
        ("transposed", "__get__ reads it, too"),
        ("twice", "a second call reads it, too"),
    ],
)
def test_who_reads_a_norm(how: str, why: str) -> None:
    model = Reads(how).requires_grad_(False)
    report = sc.sparsify(model, {"*": None}, smooth=0.5, calibration=[torch.randn(4, 16)])
    assert [norm.reason for norm in report.smoothed] == [why]
    count = "0 of 1 norms" if why else "1 of 1 norms"
    assert f"{count} smoothed" in str(report)
    assert (f"1 left as they are: {why}" in str(report)) == bool(why)


def test_a_weight_that_others_hold_is_not_multiplied() -> None:
    report = sc.sparsify(Reads("tied"), {"*": None}, smooth=0.5, calibration=[torch.randn(4, 16)])
    assert report.smoothed == ()


def test_what_smooth_cannot_be() -> None:
    with pytest.raises(sc.OptionError, match="'smooth' must be from 0 to 1, not 2"):
        smoothed(outliers(), 2)
    with pytest.raises(sc.OptionError, match="smooth needs calibration"):
        sc.sparsify(outliers(), "2:4", method="magnitude", smooth=0.5)
