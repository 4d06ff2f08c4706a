"""Int8Cache: a static cache of transformers that holds int8."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from sparsecompile.kernels.prologue import rounded_rows

try:
    _caches: Any = import_module("transformers.cache_utils")
except ImportError as error:
    raise ImportError(
        f"Int8Cache is a cache of transformers' models, which cannot be imported ({error}); "
        "pip install 'transformers>=5'"
    ) from error


class Int8Layer(_caches.StaticLayer):  # type: ignore[misc]
    """Keys and values of a layer, every row as integers of -127 to 127 times one float32 scale.

    `keys` and `values` `[batch, kv heads, max_cache_len, d]` are int8, those of `scales`
    `[batch, kv heads, max_cache_len, 1]` float32. Rows are rounded once, when they are written.

    Args:
        max_cache_len: how many tokens there is room for.
    """

    def __init__(self, max_cache_len: int) -> None:
        super().__init__(max_cache_len)
        self.scales = _caches.StaticLayer(max_cache_len)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for states like these, of any dtype."""
        super().lazy_initialization(key_states.to(torch.int8), value_states.to(torch.int8))
        self.scales.lazy_initialization(key_states[..., :1].float(), value_states[..., :1].float())

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the states of new tokens; all of the cache, in their dtype."""
        (keys, k_scale), (values, v_scale) = rounded_rows(key_states), rounded_rows(value_states)
        keys, values = super().update(keys.to(torch.int8), values.to(torch.int8), *args, **kwargs)
        k_scale, v_scale = self.scales.update(k_scale, v_scale)
        return (keys * k_scale).to(key_states.dtype), (values * v_scale).to(value_states.dtype)

    def offload(self) -> None:
        """Move it to the CPU."""
        super().offload()
        self.scales.offload()

    def prefetch(self) -> None:
        """Move it back."""
        super().prefetch()
        self.scales.prefetch()

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self.scales.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, as many as the negative number says."""
        super().crop(tokens_to_remove)
        self.scales.crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each entry of the batch be that of a beam."""
        super().reorder_cache(beam_idx)
        self.scales.reorder_cache(beam_idx)


class Int8Cache(_caches.StaticCache):  # type: ignore[misc]
    """A `StaticCache` that holds keys and values as int8: about half the bytes of bfloat16.

    Lossy: a number is off by up to half a scale, 1/254 of the largest of its row. Compiled models
    read the integers themselves. Layers with a sliding window, which hold few tokens, and states
    that are no attention's stay as they are in `StaticCache`.

    Args:
        config: the model's.
        max_cache_len: how many tokens there is room for.
        others: as `StaticCache` takes them.
    """

    def __init__(self, config: Any, max_cache_len: int, **others: Any) -> None:
        super().__init__(config, max_cache_len, **others)
        self.layers: list[Any] = [
            Int8Layer(max_cache_len) if type(layer) is _caches.StaticLayer else layer
            for layer in self.layers
        ]
