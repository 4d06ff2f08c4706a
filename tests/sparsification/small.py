"""Small models with inputs that go together, and batches of them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def stack() -> nn.Sequential:
    """Three linears with biases, of different sizes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 16)
    )


def rows(count: int = 4, columns: int = 32) -> list[Tensor]:
    """Batches whose columns hang together and differ in size by up to ten times."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, columns, generator=generator) * torch.logspace(-0.5, 0.5, columns)
    return [
        torch.randn(48, 8, generator=generator) @ mixing
        + torch.randn(48, columns, generator=generator) / 2
        for _ in range(count)
    ]


def ids(count: int = 3, length: int = 24) -> list[Tensor]:
    """Batches of token ids."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(3, 64, (2, length), generator=generator) for _ in range(count)]


def transformer(model: str, config: str, **sizes: Any) -> Any:
    """A tiny model of Transformers by the names of its class and its configuration's."""
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**{**SIZES, **sizes}))
    return made.eval().requires_grad_(False)
