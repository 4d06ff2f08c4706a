"""Attention of transformers' models: the pattern of every layer, prompts, caches and padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsecompile as sc
from sparsecompile.testing.laws import assert_no_worse

transformers: Any = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
SLIDING: dict[str, Any] = {**GROUPED, "sliding_window": 8}
Make = Callable[[str], Any]


def llama(attention: str) -> Any:
    config = transformers.LlamaConfig(**GROUPED, attn_implementation=attention)
    return transformers.LlamaForCausalLM(config)


def mistral(attention: str) -> Any:
    config = transformers.MistralConfig(**SLIDING, attn_implementation=attention)
    return transformers.MistralForCausalLM(config)


def gemma2(attention: str) -> Any:
    config = transformers.Gemma2Config(**SLIDING, head_dim=16, attn_implementation=attention)
    return transformers.Gemma2ForCausalLM(config)


def gemma3(attention: str) -> Any:
    layers = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(
        **SLIDING, head_dim=16, layer_types=layers, attn_implementation=attention
    )
    return transformers.Gemma3ForCausalLM(config)


def llama4(attention: str) -> Any:
    more = {"intermediate_size_mlp": 96, "num_local_experts": 2, "attention_chunk_size": 8}
    config = transformers.Llama4TextConfig(
        **GROUPED, **more, head_dim=16, attn_implementation=attention
    )
    return transformers.Llama4ForCausalLM(config)


def bert(attention: str) -> Any:
    return transformers.BertModel(transformers.BertConfig(**SIZES, attn_implementation=attention))


def modernbert(attention: str) -> Any:
    more = {"local_attention": 8, "global_attn_every_n_layers": 2}
    more |= {"cls_token_id": 1, "sep_token_id": 2}
    config = transformers.ModernBertConfig(**SIZES, **more, attn_implementation=attention)
    return transformers.ModernBertModel(config)


def gpt_neo(attention: str) -> Any:
    more = {"attention_types": [[["global", "local"], 1]], "window_size": 8}
    config = transformers.GPTNeoConfig(
        vocab_size=64,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=128,
        intermediate_size=96,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation=attention,
        **more,
    )
    return transformers.GPTNeoForCausalLM(config)


def t5(attention: str) -> Any:
    config = transformers.T5Config(
        vocab_size=64, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4
    )
    return transformers.T5EncoderModel(config)


def build(make: Make, attention: str) -> Any:
    torch.manual_seed(0)
    return make(attention).eval().requires_grad_(False)


def ids(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, 64, (batch, length), generator=generator)


def masks(compiler: sc.Compiler) -> list[str]:
    """Of all attentions, the reason where one has no kernel."""
    found = (node for node in compiler.report.nodes if node.reader == "attention")
    return [node.mask if node.packed else node.reason for node in found]


def first(model: Any, x: Tensor, **kwargs: Any) -> Tensor:
    result: Tensor = model(x, **kwargs)[0]
    return result


@pytest.mark.parametrize(
    ("make", "attention", "expected"),
    [
        (llama, "sdpa", ["is_causal", "is_causal"]),
        (llama, "eager", ["causal, added", "causal, added"]),
        (mistral, "sdpa", ["causal & window(8)", "causal & window(8)"]),
        (gemma2, "eager", ["causal & window(8), added", "causal, added"]),
        (gemma3, "sdpa", ["causal & window(8)", "is_causal"]),
        pytest.param(
            llama4,
            "sdpa",
            ["causal & chunked(8)", "causal & chunked(8)"],
            marks=pytest.mark.filterwarnings("ignore:Torchinductor does not support:UserWarning"),
        ),
        (bert, "sdpa", ["none", "none"]),
        (modernbert, "sdpa", ["none", "around(4)"]),
        (gpt_neo, "eager", ["scanned, added", "scanned, added"]),
        (t5, "eager", ["scanned, added", "scanned, added"]),
    ],
)
@torch.no_grad()
def test_the_pattern_of_every_layer(make: Make, attention: str, expected: list[str]) -> None:
    model, x = build(make, attention), ids(2, 40)
    compiler = sc.Compiler()
    ours, eager = first(torch.compile(model, backend=compiler), x), first(model, x)
    assert masks(compiler) == expected
    assert_no_worse(ours, eager, first(model.double(), x))


@torch.no_grad()
@pytest.mark.parametrize(("make", "attention"), [(bert, "sdpa"), (llama, "sdpa"), (llama, "eager")])
def test_padding(make: Make, attention: str) -> None:
    model, x = build(make, attention), ids(3, 20)
    padding = torch.arange(20) >= torch.tensor([[0], [7], [18]])
    compiler = sc.Compiler()
    compiled = torch.compile(model, backend=compiler)
    ours = first(compiled, x, attention_mask=padding.long())[padding]
    eager = first(model, x, attention_mask=padding.long())[padding]
    # In float64 the least number and a score below 0 make rows of infinities.
    wide = build(make, "sdpa").double()
    exact = first(wide, x, attention_mask=padding.long())[padding]
    assert_no_worse(ours, eager, exact)
    assert all("padding" in mask or "scanned" in mask for mask in masks(compiler))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(
    ("make", "attention"), [(llama, "sdpa"), (gemma3, "sdpa"), (gemma2, "eager")]
)
@torch.no_grad()
def test_generated_tokens_are_the_same(make: Make, attention: str, cache: str) -> None:
    model, x = build(make, attention), ids(1, 12)
    options = {"max_new_tokens": 9, "do_sample": False, "cache_implementation": cache}
    expected = model.generate(x, **options)
    compiler = sc.Compiler()
    model.forward = torch.compile(model.forward, backend=compiler)
    assert torch.equal(model.generate(x, **options), expected)
    assert not [
        mask for mask in masks(compiler) if " " in mask and "&" not in mask and "," not in mask
    ]
    # A prompt and a step; a dynamic cache's first step has sizes of its own.
    assert compiler.report.graphs <= (2 if cache == "static" else 4)


@torch.no_grad()
def test_beams_and_a_padded_batch() -> None:
    model, x = build(llama, "sdpa"), ids(3, 12)
    padding = (torch.arange(12) >= torch.tensor([[0], [3], [8]])).long()
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": 2, "attention_mask": padding}
    expected = model.generate(x, **options)
    compiler = sc.Compiler()
    model.forward = torch.compile(model.forward, backend=compiler)
    assert torch.equal(model.generate(x, **options), expected)
    assert all(node.packed for node in compiler.report.nodes if node.reader == "attention")
