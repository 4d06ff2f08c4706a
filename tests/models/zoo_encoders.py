"""Text encoders and one encoder-decoder, small enough to compile in seconds."""

from models.zoo import BATCH, VOCABULARY, Inputs, Options, architecture, token_ids, tokens
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

TINY: Options = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def two_sequences(model: PreTrainedModel, length: int) -> Inputs:
    """Sequences of `length` tokens for an encoder, and as long for its decoder."""
    ids = tokens(BATCH, length)
    return {"input_ids": ids, "decoder_input_ids": ids.flip(1)}


@architecture(token_ids)
def bert() -> PreTrainedModel:
    """The plain encoder, with its pooler."""
    return BertModel(BertConfig(**TINY))


@architecture(token_ids)
def roberta() -> PreTrainedModel:
    """Positions counted from the tokens that are not padding."""
    return RobertaModel(RobertaConfig(**TINY))


@architecture(token_ids)
def distilbert() -> PreTrainedModel:
    """Its own attention block and names."""
    return DistilBertModel(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=64,
            hidden_dim=128,
            n_layers=1,
            n_heads=4,
            max_position_embeddings=64,
        )
    )


@architecture(token_ids)
def deberta_v2() -> PreTrainedModel:
    """Attention between contents and relative positions, which pass the same projections."""
    positions: Options = {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    }
    return DebertaV2Model(DebertaV2Config(**TINY, **positions))


@architecture(token_ids)
def electra() -> PreTrainedModel:
    """Embeddings narrower than the layers, projected up."""
    return ElectraModel(ElectraConfig(**TINY, embedding_size=32))


@architecture(token_ids)
def albert() -> PreTrainedModel:
    """Two layers that share every weight."""
    return AlbertModel(AlbertConfig(**{**TINY, "num_hidden_layers": 2}, embedding_size=32))


@architecture(token_ids)
def modernbert() -> PreTrainedModel:
    """Local attention, rotations, and a gated feed-forward with one weight for both halves."""
    special: Options = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return ModernBertModel(
        ModernBertConfig(**TINY, **special, local_attention=8, layer_types=["sliding_attention"])
    )


@architecture(two_sequences)
def t5() -> PreTrainedModel:
    """An encoder and a decoder with cross attention, bucketed positions and no biases."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=1,
            num_heads=4,
            use_cache=False,
            feed_forward_proj="gated-gelu",
        )
    )


ENCODERS = (bert, roberta, distilbert, deberta_v2, electra, albert, modernbert, t5)
