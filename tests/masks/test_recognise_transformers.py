"""What the functions of transformers make as masks is recognised, with caches and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from masks.recorded import recorded
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaConfig, MistralConfig, StaticCache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_chunked_causal_mask,
    create_sliding_window_causal_mask,
)

Make = Callable[..., Tensor]
CAUSAL = (create_causal_mask, create_sliding_window_causal_mask, create_chunked_causal_mask)
CONFIG = MistralConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    sliding_window=4,
    attn_implementation="sdpa",
)
CONFIG.attention_chunk_size = 4
NO_WINDOW = LlamaConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    attn_implementation="sdpa",
)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Attend(torch.nn.Module):
    """An attention whose mask a function of transformers makes."""

    def __init__(self, make: Make, config: Any, **more: Any) -> None:
        super().__init__()
        self.make, self.config, self.more = make, config, more

    def forward(self, x: Tensor, padding: Tensor | None, cache: Cache | None) -> Tensor:
        more = self.more
        if self.make in CAUSAL and "position_ids" not in more:
            more = {**more, "position_ids": torch.arange(x.shape[1])[None]}
        mask = self.make(self.config, x, padding, cache=cache, **more)
        keys = x[:, None]
        if cache is not None:
            keys, _ = cache.update(keys, keys, 0)
        return torch.nn.functional.scaled_dot_product_attention(
            x[:, None], keys, keys, attn_mask=mask
        )


def texts(
    make: Make,
    q: int = 12,
    padding: Tensor | None = None,
    cache: Cache | None = None,
    *,
    config: Any = CONFIG,
    dynamic: bool = False,
    **more: Any,
) -> list[str]:
    """Of the masks of an attention of `q` queries."""
    attend = Attend(make, config, **more)
    return recorded(attend, torch.randn(2, q, 8), padding, cache, dynamic=dynamic)


def padded(size: int) -> Tensor:
    mask = torch.ones(2, size, dtype=torch.long)
    mask[0, :3] = 0
    mask[1, -2:] = 0
    return mask


def filled(cache: Cache, size: int = 12) -> Cache:
    keys = torch.randn(2, 1, size, 8)
    cache.update(keys, keys, 0)
    return cache


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (create_causal_mask, "causal"),
        (create_sliding_window_causal_mask, "causal & window(4)"),
        (create_chunked_causal_mask, "causal & chunked(4)"),
    ],
)
def test_causal_masks(make: Make, text: str, dynamic: bool) -> None:
    # One sequence: what tells packed ones apart is the same everywhere.
    assert texts(make, dynamic=dynamic) == [text]
    assert texts(make, padding=padded(12), dynamic=dynamic) == [f"{text} & padding"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_masks_of_both_sides(dynamic: bool) -> None:
    assert texts(create_bidirectional_mask, padding=padded(12), dynamic=dynamic) == ["padding"]
    found = texts(create_bidirectional_sliding_window_mask, dynamic=dynamic)
    assert found == ["around(4)"]
    found = texts(create_bidirectional_sliding_window_mask, padding=padded(12), dynamic=dynamic)
    assert found == ["around(4) & padding"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_mask_of_vmap(dynamic: bool) -> None:
    def or_later(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return kv < q + 3

    found = texts(
        create_causal_mask, padding=padded(12), or_mask_function=or_later, dynamic=dynamic
    )
    assert found == ["causal & padding, queries from 2"]


def test_a_part_of_a_prompt_after_a_cache() -> None:
    cache = filled(DynamicCache(config=NO_WINDOW))
    found = texts(create_causal_mask, 4, padded(16), cache, config=NO_WINDOW)
    assert found == ["causal & padding, queries from 12"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_window_after_a_cache(dynamic: bool) -> None:
    cache = filled(DynamicCache(config=CONFIG))
    (found,) = texts(create_sliding_window_causal_mask, 5, None, cache, dynamic=dynamic)
    assert found.startswith("causal & window(4), queries from ")


def test_a_step_that_sees_all_of_its_window() -> None:
    cache = filled(DynamicCache(config=CONFIG))
    assert texts(create_sliding_window_causal_mask, 1, None, cache) == ["full"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_position_of_a_static_cache_is_read_before_it_moves_on(dynamic: bool) -> None:
    cache = filled(StaticCache(config=NO_WINDOW, max_cache_len=32))
    (found,) = texts(create_causal_mask, 1, None, cache, config=NO_WINDOW, dynamic=dynamic)
    assert found.startswith("causal, queries from ")
    assert "cumulative_length" in found
    (found,) = texts(create_causal_mask, 3, padded(16), cache, config=NO_WINDOW, dynamic=dynamic)
    assert found.startswith("causal & padding, queries from ")


def test_masks_of_four_axes_are_given_from_outside() -> None:
    given = torch.ones(2, 1, 12, 12, dtype=torch.bool).tril()
    assert texts(create_causal_mask, padding=given) == [
        "l_padding_ is given to the graph as a mask, which nothing is known of"
    ]
    row = torch.arange(32).expand(2, 1, 1, 32) < 13
    cache = filled(StaticCache(config=NO_WINDOW, max_cache_len=32))
    assert texts(create_causal_mask, 1, row, cache, config=NO_WINDOW) == ["padding"]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (create_causal_mask, "causal & documents"),
        (create_sliding_window_causal_mask, "causal & window(4) & documents"),
    ],
)
def test_packed_sequences(make: Make, text: str, dynamic: bool) -> None:
    """Comparisons of positions within sequences are comparisons of places."""
    positions = torch.tensor([[*range(5), *range(7)], [*range(3, 12), *range(3)]])
    assert texts(make, position_ids=positions[:1], dynamic=dynamic) == [text]
    assert texts(make, position_ids=positions, dynamic=dynamic) == [text]


def test_packed_sequences_that_are_not_told_apart() -> None:
    def causal(config: Any, x: Tensor, padding: Tensor, cache: None) -> Tensor:
        """As of packed sequences, but of the same id only every second place."""
        batch = torch.arange(2)[:, None, None, None]
        q = torch.arange(12)[None, None, :, None]
        kv = torch.arange(12)[None, None, None, :]
        positions = padding.to(torch.int64)
        steps = torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1)
        ids = (steps != 1).cumsum(-1)
        kept = positions[batch, kv] <= positions[batch, q]
        return kept & (ids[batch, q // 2] == ids[batch, kv])

    assert texts(causal, padding=padded(12)) == [
        "mask compares positions positions of sequences that it does not tell apart"
    ]
