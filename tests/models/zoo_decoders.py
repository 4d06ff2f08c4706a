"""Decoder-only language models, small enough to compile in seconds."""

from models.zoo import VOCABULARY, Options, architecture, token_ids
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

SPECIAL: Options = {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TINY: Options = {
    **SPECIAL,
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED: Options = {**TINY, "num_key_value_heads": 2}


@architecture(token_ids)
def llama() -> PreTrainedModel:
    """Gated feed-forward, grouped keys and values, no biases."""
    return LlamaForCausalLM(LlamaConfig(**GROUPED))


@architecture(token_ids)
def qwen3() -> PreTrainedModel:
    """Norms between the query and key projections and the rotation."""
    return Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16))


@architecture(token_ids)
def gemma3() -> PreTrainedModel:
    """Four norms to a layer, a sliding window, a tied head, and a cap on the logits."""
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **GROUPED,
            head_dim=16,
            sliding_window=8,
            layer_types=["sliding_attention"],
            final_logit_softcapping=30.0,
        )
    )


@architecture(token_ids)
def phi3() -> PreTrainedModel:
    """Query, key and value in one weight, gate and up in another."""
    return Phi3ForCausalLM(Phi3Config(**GROUPED))


@architecture(token_ids)
def mistral() -> PreTrainedModel:
    """A sliding window shorter than the longer sequences."""
    return MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=8))


@architecture(token_ids)
def gpt2() -> PreTrainedModel:
    """Weights stored transposed, [in, out], and multiplied by addmm."""
    return GPT2LMHeadModel(
        GPT2Config(
            **SPECIAL,
            vocab_size=VOCABULARY,
            n_positions=64,
            n_embd=64,
            n_layer=1,
            n_head=4,
            n_inner=128,
        )
    )


@architecture(token_ids)
def gpt_neox() -> PreTrainedModel:
    """Attention and feed-forward side by side, and a rotation of part of each head."""
    return GPTNeoXForCausalLM(GPTNeoXConfig(**TINY))


@architecture(token_ids)
def opt() -> PreTrainedModel:
    """Learned positions, ReLU, and biases everywhere."""
    return OPTForCausalLM(
        OPTConfig(
            **SPECIAL,
            vocab_size=VOCABULARY,
            hidden_size=64,
            ffn_dim=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
        )
    )


@architecture(token_ids)
def bloom() -> PreTrainedModel:
    """Position biases added by baddbmm, and a GELU written out in elementary operations."""
    return BloomForCausalLM(
        BloomConfig(**SPECIAL, vocab_size=VOCABULARY, hidden_size=64, n_layer=1, n_head=4)
    )


@architecture(token_ids)
def falcon() -> PreTrainedModel:
    """Linears written as a matmul with the transposed weight and a separate addition."""
    return FalconForCausalLM(
        FalconConfig(
            **SPECIAL,
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            ffn_hidden_size=128,
            bias=True,
        )
    )


@architecture(token_ids)
def olmo2() -> PreTrainedModel:
    """Norms after the attention and the feed-forward, not before."""
    return Olmo2ForCausalLM(Olmo2Config(**GROUPED))


@architecture(token_ids)
def starcoder2() -> PreTrainedModel:
    """Biased projections, grouped keys and values, and a plain feed-forward."""
    return Starcoder2ForCausalLM(Starcoder2Config(**GROUPED))


@architecture(token_ids)
def mixtral() -> PreTrainedModel:
    """Four experts, two for each token; the experts are not linears and stay dense."""
    return MixtralForCausalLM(MixtralConfig(**GROUPED, num_local_experts=4))


DECODERS = (
    llama,
    qwen3,
    gemma3,
    phi3,
    mistral,
    gpt2,
    gpt_neox,
    opt,
    bloom,
    falcon,
    olmo2,
    starcoder2,
    mixtral,
)
