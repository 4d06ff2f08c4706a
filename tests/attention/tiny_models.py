"""Tiny models whose attentions differ, beside those of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from models.zoo import VOCABULARY, Architecture, Inputs, images, token_ids
from torch import Tensor
from transformers import PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
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
Make = Callable[[PreTrainedModel, int], Inputs]


def build(architecture: Architecture, attention: str) -> PreTrainedModel:
    """A model that spells attention `eager` or `sdpa`."""
    model = architecture.build()
    model.set_attn_implementation(attention)
    return model.requires_grad_(False)


def ids(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, 64, (batch, length), generator=generator)


def tiny(name: str, config: str, inputs: Make = token_ids, **sizes: Any) -> Architecture:
    """A model by the names of its class and its configuration's."""
    lengths = (12, 21, 40) if inputs is token_ids else (1, 2, 3)
    return Architecture(name, partial(_seeded, name, config, sizes), inputs, lengths)


def _seeded(name: str, config: str, sizes: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, name)(getattr(transformers, config)(**sizes))
    return model.eval()


llama = tiny("LlamaForCausalLM", "LlamaConfig", **GROUPED)
qwen3 = tiny("Qwen3ForCausalLM", "Qwen3Config", **GROUPED, head_dim=16)
phi3 = tiny("Phi3ForCausalLM", "Phi3Config", **GROUPED)
mistral = tiny("MistralForCausalLM", "MistralConfig", **SLIDING)
gemma2 = tiny("Gemma2ForCausalLM", "Gemma2Config", **SLIDING, head_dim=16)
gemma3 = tiny(
    "Gemma3ForCausalLM",
    "Gemma3TextConfig",
    **SLIDING,
    head_dim=16,
    layer_types=["sliding_attention", "full_attention"],
)
llama4 = tiny(
    "Llama4ForCausalLM",
    "Llama4TextConfig",
    **GROUPED,
    head_dim=16,
    intermediate_size_mlp=96,
    num_local_experts=2,
    attention_chunk_size=8,
)
gpt_oss = tiny(
    "GptOssForCausalLM",
    "GptOssConfig",
    **SLIDING,
    head_dim=16,
    num_local_experts=2,
    num_experts_per_tok=1,
)
gpt_neo = tiny(
    "GPTNeoForCausalLM",
    "GPTNeoConfig",
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    max_position_embeddings=128,
    intermediate_size=96,
    bos_token_id=1,
    eos_token_id=2,
    attention_types=[[["global", "local"], 1]],
    window_size=8,
)
bert = tiny("BertModel", "BertConfig", **SIZES)
modernbert = tiny(
    "ModernBertModel",
    "ModernBertConfig",
    **SIZES,
    local_attention=8,
    global_attn_every_n_layers=2,
    cls_token_id=1,
    sep_token_id=2,
)
longformer = tiny(
    "LongformerModel",
    "LongformerConfig",
    **{**SIZES, "num_hidden_layers": 1, "max_position_embeddings": 130},
    attention_window=8,
)
BLOCKS = {**SIZES, "num_hidden_layers": 1, "block_size": 4, "num_random_blocks": 1}
bigbird = tiny("BigBirdModel", "BigBirdConfig", **BLOCKS)
bigbird_full = tiny("BigBirdModel", "BigBirdConfig", **BLOCKS, attention_type="original_full")
t5 = tiny(
    "T5EncoderModel",
    "T5Config",
    vocab_size=VOCABULARY,
    d_model=64,
    d_kv=16,
    d_ff=96,
    num_layers=2,
    num_heads=4,
)
swin = tiny(
    "SwinModel",
    "SwinConfig",
    inputs=images,
    image_size=16,
    patch_size=2,
    embed_dim=32,
    depths=[2],
    num_heads=[2],
    window_size=4,
)
