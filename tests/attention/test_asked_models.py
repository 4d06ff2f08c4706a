"""Attention on request in transformers' models: prompts and steps, caches, padding, biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention.tiny_models import GROUPED, build, ids, llama, t5
from packing import Packing
from torch import Tensor

import sparsecompile as sc
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.operators.attention.asked import asked_for
from sparsecompile.testing.laws import assert_no_worse

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

LENGTH, PROMPT, PADDED = 26, 20, 5


def whole(model: Any, x: Tensor, padding: Tensor, pattern: MaskPattern) -> Tensor:
    """Logits of all tokens at once, with the pattern as an explicit mask."""
    place = torch.arange(x.shape[1])
    b, h = torch.arange(x.shape[0])[:, None, None, None], torch.arange(4)[:, None, None]
    mask = (place <= place[:, None]) & padding.bool()[:, None, None]
    mask = mask & pattern.keeps(b, h, place[:, None], place)
    added = torch.where(mask, 0.0, -1e9).to(model.lm_head.weight.dtype)
    result: Tensor = model(x, attention_mask=added, position_ids=positions(padding)).logits
    return result


def positions(padding: Tensor) -> Tensor:
    return (padding.cumsum(1) - 1).clamp(min=0)


@pytest.mark.parametrize(
    ("text", "attention", "cache"),
    [
        ("window(6)", "sdpa", "dynamic"),
        ("window(6)", "eager", "static"),
        ("window(6) + global(7)", "sdpa", "static"),
        ("window(6) + global(7)", "eager", "dynamic"),
    ],
)
@torch.no_grad()
def test_a_prompt_and_steps_are_one_long_prompt(text: str, attention: str, cache: str) -> None:
    model, x = build(llama, attention), ids(2, LENGTH)
    padding = torch.ones_like(x)
    padding[1, :PADDED] = 0
    backend = Packing(attention=text, tune="off")
    compiled = torch.compile(model, backend=backend)
    past = (
        transformers.StaticCache(config=model.config, max_cache_len=40)
        if cache == "static"
        else transformers.DynamicCache(config=model.config)
    )
    steps = []
    for begin, end in ((0, PROMPT), *((i, i + 1) for i in range(PROMPT, LENGTH))):
        # A copy, for the whole has other strides.
        known = padding[:, :end].clone()
        out = compiled(
            x[:, begin:end],
            attention_mask=known,
            position_ids=positions(padding)[:, begin:end].clone(),
            past_key_values=past,
            use_cache=True,
        )
        steps.append(out.logits)
    pattern = asked_for(text)
    assert isinstance(pattern, MaskPattern)
    eager = whole(model, x, padding, pattern)
    plain = model(x, attention_mask=padding, position_ids=positions(padding)).logits
    exact = whole(model.double(), x, padding, pattern)
    there = padding.bool()
    assert_no_worse(torch.cat(steps, 1)[there], eager[there], exact[there])
    assert (plain - exact)[there].abs().max() > 1e-3, "it makes no difference"
    # A prompt and a step; a dynamic cache's first step has sizes of its own.
    report = backend.compiler.report
    assert report.graphs <= (2 if cache == "static" else 3)
    found = [node for node in report.nodes if node.reader == "attention"]
    assert all(node.packed and node.lossy == f"attention {pattern}" for node in found)


@pytest.mark.parametrize("text", ["top_blocks(0.4)", "clusters(3)"])
@torch.no_grad()
def test_prompts_of_which_keys_are_chosen(text: str) -> None:
    """A static cache's empty places change nothing."""
    config = {**GROUPED, "max_position_embeddings": 256}
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    x = ids(1, 200)
    compiled = torch.compile(model, backend=sc.Compiler(attention=text, tune="off"))
    static = transformers.StaticCache(config=model.config, max_cache_len=250)
    found = [compiled(x).logits, compiled(x, past_key_values=static, use_cache=True).logits]
    assert (found[0] - found[1]).abs().max() < 1e-5
    assert (found[0] - model(x).logits).abs().max() > 1e-3


@torch.no_grad()
def test_biases_of_positions_are_refused() -> None:
    model, x = build(t5, "eager"), ids(2, 40)
    report = sc.explain(model, x, attention="window(9)", tune="off")
    nodes = [node for node in report.nodes if node.reader == "attention"]
    assert nodes
    for node in nodes:
        assert not node.lossy
        assert node.reason.startswith("without window(9), which is asked for: its mask is added")
