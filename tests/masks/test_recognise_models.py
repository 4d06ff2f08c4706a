"""The masks of whole models are recognised, in the graphs that Dynamo hands over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from masks.recorded import recorded
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
)

TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**TINY, "num_key_value_heads": 1}
TWO_KINDS: dict[str, Any] = {
    **GROUPED,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
}
CHUNKS: dict[str, Any] = {
    **GROUPED,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "intermediate_size_mlp": 32,
    "num_local_experts": 2,
    "attention_chunk_size": 4,
    "no_rope_layers": [1, 0],
    "moe_layers": [],
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**GROUPED))


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=4))


def phi3() -> PreTrainedModel:
    return Phi3ForCausalLM(Phi3Config(**GROUPED))


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16))


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**TINY))


def gemma3() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**TWO_KINDS))


def gemma3_of_both_sides() -> PreTrainedModel:
    """Its masks are made by `vmap`."""
    config = Gemma3TextConfig(**TWO_KINDS, use_bidirectional_attention=True)
    return Gemma3ForCausalLM(config)


def llama4() -> PreTrainedModel:
    return Llama4ForCausalLM(Llama4TextConfig(**CHUNKS))


def bert() -> PreTrainedModel:
    return BertModel(BertConfig(**TINY))


def modernbert() -> PreTrainedModel:
    config = {**TINY, "num_hidden_layers": 2}
    return ModernBertModel(
        ModernBertConfig(**config, local_attention=8, global_attn_every_n_layers=2)
    )


pytestmark = pytest.mark.slow

IDS = torch.arange(24).view(2, 12) + 3
PADDED = torch.ones(2, 12, dtype=torch.long)
PADDED[0, :3] = 0
PADDED[1, 10:] = 0


@pytest.mark.parametrize(
    ("model", "dynamic", "alone", "padded"),
    [
        (llama, True, ["causal"], ["causal & padding"]),
        (phi3, False, ["causal"], ["causal & padding"]),
        (qwen3, True, ["causal"], ["causal & padding"]),
        (gpt_neox, False, ["causal"], ["causal & padding"]),
        (mistral, True, ["causal & window(4)"], ["causal & window(4) & padding"]),
        (
            gemma3,
            False,
            ["causal & window(4)", "causal"],
            ["causal & window(4) & padding", "causal & padding"],
        ),
        (gemma3_of_both_sides, True, ["around(2)", "full"], ["around(2) & padding", "padding"]),
        (
            llama4,
            False,
            ["causal & chunked(4)", "causal"],
            ["causal & chunked(4) & padding", "causal & padding"],
        ),
        (modernbert, True, ["around(4)"], ["padding", "around(4) & padding"]),
        (bert, False, [], ["padding"]),
    ],
)
def test_models(model: Any, dynamic: bool, alone: list[str], padded: list[str]) -> None:
    """Sizes are dynamic in turn: `test_recognise_transformers.py` has every mask with both."""
    made = model().eval()
    cache = {} if model in (bert, modernbert) else {"use_cache": False}
    assert recorded(made, dynamic=dynamic, input_ids=IDS, **cache) == alone
    found = recorded(made, dynamic=dynamic, input_ids=IDS, attention_mask=PADDED, **cache)
    assert found == padded


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_position_of_a_static_cache_is_read_before_it_moves_on(dynamic: bool) -> None:
    model = llama().eval().requires_grad_(False)
    cache = StaticCache(config=model.config, max_cache_len=32)
    model(input_ids=IDS, cache=cache)
    found = recorded(
        model, dynamic=dynamic, input_ids=IDS[:, :1], cache=cache, attention_mask=torch.ones(2, 13)
    )
    position = "l_kwargs_cache_layers_0_cumulative_length"
    assert found == [f"causal & padding, queries from {position}"]
