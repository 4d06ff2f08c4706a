"""Vision, audio and image-text models, small enough to compile in seconds."""

from models.zoo import BATCH, VOCABULARY, Inputs, Options, architecture, images, random, tokens
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

TINY: Options = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
IMAGE: Options = {"image_size": 16, "patch_size": 4}
MELS = 8
FRAMES = 16
END_OF_CAPTION = 3


def image_text_pairs(model: PreTrainedModel, length: int) -> Inputs:
    """`length` images and as many captions of one size."""
    captions = tokens(length, 6)
    captions[:, -1] = END_OF_CAPTION
    return {"pixel_values": images(model, length)["pixel_values"], "input_ids": captions}


def spectrogram(model: PreTrainedModel, length: int) -> Inputs:
    """A spectrogram of the one size Whisper takes, and `length` tokens for the decoder."""
    return {
        "input_features": random(BATCH, MELS, FRAMES),
        "decoder_input_ids": tokens(BATCH, length),
    }


def waveform(model: PreTrainedModel, length: int) -> Inputs:
    """A batch of waveforms of `length` samples."""
    return {"input_values": random(BATCH, length)}


@architecture(images, lengths=(2, 3, 5))
def vit() -> PreTrainedModel:
    """Patches by a convolution, then a plain encoder with a pooler."""
    return ViTModel(ViTConfig(**TINY, **IMAGE))


@architecture(images, lengths=(2, 3, 5))
def dinov2() -> PreTrainedModel:
    """A scale for every channel after each block."""
    return Dinov2Model(
        Dinov2Config(
            **IMAGE, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, mlp_ratio=2
        )
    )


@architecture(images, lengths=(2, 3, 5))
def swin() -> PreTrainedModel:
    """Attention within windows, and a merge of patches by a linear."""
    return SwinModel(
        SwinConfig(
            image_size=16,
            patch_size=2,
            embed_dim=32,
            depths=[1, 1],
            num_heads=[2, 4],
            window_size=4,
            mlp_ratio=2.0,
        )
    )


@architecture(images, lengths=(2, 3, 5))
def convnext() -> PreTrainedModel:
    """Convolutions with linears over the channels of every pixel."""
    return ConvNextModel(
        ConvNextConfig(
            image_size=16, patch_size=2, num_stages=2, hidden_sizes=[32, 64], depths=[1, 1]
        )
    )


@architecture(image_text_pairs, lengths=(2, 3, 5))
def clip() -> PreTrainedModel:
    """A text and a vision tower whose projections are compared."""
    special: Options = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END_OF_CAPTION}
    text: Options = {**TINY, **special, "vocab_size": VOCABULARY, "max_position_embeddings": 16}
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config={**TINY, **IMAGE}, projection_dim=32)
    )


@architecture(spectrogram)
def whisper() -> PreTrainedModel:
    """An audio encoder behind two convolutions and a text decoder with cross attention."""
    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY,
            num_mel_bins=MELS,
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_source_positions=FRAMES // 2,
            max_target_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            use_cache=False,
        )
    )


@architecture(waveform, lengths=(400, 520, 640))
def wav2vec2() -> PreTrainedModel:
    """Strided convolutions over the samples and a weight-normed convolution for positions."""
    return Wav2Vec2Model(
        Wav2Vec2Config(
            **TINY,
            conv_dim=[32, 32],
            conv_stride=[5, 4],
            conv_kernel=[10, 4],
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=4,
        )
    )


PERCEPTION = (vit, dinov2, swin, convnext, clip, whisper, wav2vec2)
