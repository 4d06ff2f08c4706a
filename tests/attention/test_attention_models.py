"""Attention of transformers' models: the pattern of every layer, prompts, caches and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attention.tiny_models import (
    bert,
    bigbird,
    bigbird_full,
    build,
    gemma2,
    gemma3,
    gpt_neo,
    gpt_oss,
    ids,
    llama,
    llama4,
    longformer,
    mistral,
    modernbert,
    phi3,
    qwen3,
    swin,
    t5,
)
from models.zoo import Architecture, Inputs, floating_outputs, in_double
from models.zoo_decoders import bloom
from models.zoo_encoders import deberta_v2
from models.zoo_encoders import t5 as t5_with_decoder
from models.zoo_perception import vit, whisper
from packing import Packing
from transformers import GenerationMixin

import sparsecompile as sc
from sparsecompile.report.facts import NodeReport
from sparsecompile.testing.laws import assert_no_worse

THROUGH_INDUCTOR = {(llama, "sdpa"), (t5, "eager")}
"""What Inductor makes of the rest is most of the time, and is the same for others."""


def compiler_of(model: Architecture, attention: str) -> tuple[sc.Compiler, Any]:
    """A compiler, and the backend that it is: alone, or with Inductor behind it."""
    packing = Packing()
    through_inductor = (model, attention) in THROUGH_INDUCTOR
    return packing.compiler, packing.compiler if through_inductor else packing


def masks(nodes: Sequence[NodeReport]) -> list[str]:
    """Of all attentions, the reason where one has no kernel."""
    found = (node for node in nodes if node.reader == "attention")
    return [node.mask if node.packed else f"left: {node.reason}" for node in found]


SINKS = "left: its scores are concatenated with {} before the softmax; its weights go through "
SINKS += "getitem, to"
CHUNKS = (
    "left: its scores are written into diagonal_attention_scores piece by piece; its weights go "
    "through masked_fill, type_as, transpose, reshape, pad, view, getitem; its products are by "
    "einsum bcxd,bcyd->bcxy, einsum bcwd,bcdh->bcwh, not matmul"
)
BMM = "left: its weights go through {}; its products are by {}, not matmul"
READ_TWICE = "left: its weights {} are read by more than one node"
BLOCKS = (
    "left: its scores are concatenated with inner_band_product_2, rand_band_product_2, "
    "last_band_product_2 before the softmax; its weights go through getitem; its products are by "
    "einsum bhlqd,bhkd->bhlqk, einsum bhlqk,bhkd->bhlqd, not matmul"
)


IS_CAUSAL = not torch.__version__.startswith("2.11")
"""Whether transformers says so instead of making a mask, which it does with older versions."""


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")
@pytest.mark.parametrize(
    ("architecture", "attention", "expected"),
    [
        (llama, "sdpa", 2 * ["is_causal"]),
        (llama, "eager", 2 * ["causal, added"]),
        (qwen3, "sdpa", 2 * ["is_causal"]),
        (qwen3, "eager", 2 * ["causal, added"]),
        (phi3, "sdpa", 2 * ["is_causal"]),
        (phi3, "eager", 2 * ["causal, added"]),
        (mistral, "sdpa", 2 * ["causal & window(8)"]),
        (mistral, "eager", 2 * ["causal & window(8), added"]),
        (gemma2, "eager", ["causal & window(8), added", "causal, added"]),
        (gemma3, "sdpa", ["causal & window(8)", "is_causal"]),
        (gemma3, "eager", ["causal & window(8), added", "causal, added"]),
        (llama4, "sdpa", 2 * ["causal & chunked(8)"]),
        (llama4, "eager", 2 * ["causal & chunked(8), added"]),
        (gpt_neo, "eager", 2 * ["scanned, added"]),
        (gpt_oss, "eager", [SINKS.format("sinks"), SINKS.format("sinks_1")]),
        (bloom, "eager", [BMM.format("to, view", "baddbmm, bmm")]),
        (bert, "sdpa", 2 * ["none"]),
        (bert, "eager", 2 * ["none"]),
        (modernbert, "sdpa", ["none", "around(4)"]),
        (modernbert, "eager", ["none", "around(4), added"]),
        (deberta_v2, "eager", [BMM.format("view", "bmm")]),
        (longformer, "eager", [CHUNKS]),
        (bigbird_full, "eager", ["scanned, added"]),
        (
            bigbird,
            "eager",
            [
                READ_TWICE.format("first_attn_weights"),
                READ_TWICE.format("second_attn_weights"),
                BLOCKS,
                READ_TWICE.format("second_last_attn_weights"),
                READ_TWICE.format("last_attn_weights"),
            ],
        ),
        (t5, "eager", 2 * ["scanned, added"]),
        (t5_with_decoder, "sdpa", ["scanned, added", "scanned, added", "none"]),
        (t5_with_decoder, "eager", ["scanned, added", "scanned, added", "none"]),
        (whisper, "sdpa", ["none", "causal", "none"]),
        (whisper, "eager", ["none", "causal, added", "none"]),
        (vit, "sdpa", ["none"]),
        (vit, "eager", ["none"]),
        (swin, "sdpa", 2 * ["scanned, added"]),
        (swin, "eager", 2 * ["scanned, added"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@torch.no_grad()
def test_the_pattern_of_every_layer(
    architecture: Architecture, attention: str, expected: list[str]
) -> None:
    model = build(architecture, attention)
    inputs = architecture.inputs(model, architecture.lengths[-1])
    compiler, backend = compiler_of(architecture, attention)
    ours = floating_outputs(torch.compile(model, backend=backend), inputs)
    if not IS_CAUSAL:
        expected = ["causal" if mask == "is_causal" else mask for mask in expected]
    assert masks(compiler.report.nodes) == expected
    eager = floating_outputs(model, inputs)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    exact = floating_outputs(in_double(model), wide)
    for name in ours:
        assert_no_worse(ours[name], eager[name], exact[name])


PADDING = (torch.arange(12) >= torch.tensor([[0], [3], [8]])).long()


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "attention"),
    [(bert, "sdpa"), (llama, "sdpa"), (llama, "eager"), (modernbert, "eager"), (t5, "sdpa")],
    ids=lambda value: getattr(value, "name", None),
)
def test_padding(architecture: Architecture, attention: str) -> None:
    model, x, there = build(architecture, attention), ids(3, 12), PADDING.bool()
    compiler, backend = compiler_of(architecture, attention)
    compiled = torch.compile(model, backend=backend)
    # In float64 the least number and a score below 0 make rows of infinities.
    wide = build(architecture, "sdpa").double()
    runs = (run(x, attention_mask=PADDING)[0][there] for run in (compiled, model, wide))
    assert_no_worse(*runs)
    assert all("padding" in mask or "scanned" in mask for mask in masks(compiler.report.nodes))


def generate(model: Any, inputs: Inputs, **options: Any) -> Any:
    inputs = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    more = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    more |= {"max_new_tokens": 9, "min_new_tokens": 9, "use_cache": True}
    special = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    return GenerationMixin.generate(model, **inputs, **more, **special, **options)


@pytest.mark.parametrize(
    ("architecture", "attention", "cache", "beams", "steps"),
    [
        (llama, "sdpa", "dynamic", 1, {"causal & padding"}),
        (llama, "sdpa", "static", 2, {"padding"}),
        (gemma2, "eager", "dynamic", 2, {"causal & window(8), added", "causal, added"}),
        (gemma2, "eager", "static", 1, {"scanned, added"}),
        (gemma3, "sdpa", "dynamic", 2, {"causal & window(8) & padding", "causal & padding"}),
        (gemma3, "sdpa", "static", 1, {"padding"}),
        (mistral, "sdpa", "dynamic", 1, {"causal & window(8) & padding"}),
        (mistral, "eager", "static", 2, {"scanned, added"}),
        (llama4, "sdpa", "dynamic", 1, {"causal & chunked(8) & padding"}),
        (qwen3, "sdpa", "static", 1, {"padding"}),
        (phi3, "eager", "dynamic", 1, {"causal, added"}),
        (gpt_neo, "eager", "dynamic", 2, {"scanned, added"}),
        (gpt_oss, "eager", "static", 1, {SINKS.format("sinks"), SINKS.format("sinks_1")}),
        (t5_with_decoder, "sdpa", "dynamic", 2, {"scanned, added"}),
        (whisper, "sdpa", "static", 1, {"padding", "none"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@torch.no_grad()
def test_generation(
    architecture: Architecture, attention: str, cache: str, beams: int, steps: set[str]
) -> None:
    """Prompts, of which two are padded, and steps after them, with the masks of the last."""
    model = build(architecture, attention)
    inputs = {"input_ids": ids(3, 12)}
    if architecture is whisper:
        inputs = {"input_features": architecture.inputs(model, 1)["input_features"]}
    elif attention == "sdpa":
        # In float64 the least number and a score below 0 make rows of infinities.
        inputs["attention_mask"] = PADDING
    options = {"cache_implementation": cache, "num_beams": beams}
    eager, exact = (generate(each, inputs, **options) for each in (model, in_double(model)))
    compiler, backend = compiler_of(architecture, attention)
    model.forward = torch.compile(model.forward, backend=backend)
    ours = generate(model, inputs, **options)
    assert torch.equal(ours.sequences, eager.sequences)
    assert torch.equal(exact.sequences, eager.sequences)
    assert_no_worse(*(torch.cat(each.logits) for each in (ours, eager, exact)))
    # A prompt and a step; a dynamic cache's first step has sizes of its own.
    assert compiler.report.graphs <= (2 if cache == "static" else 3)
    assert set(masks(compiler.report.graph_reports[-1].nodes)) == steps
