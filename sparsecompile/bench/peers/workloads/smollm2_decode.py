"""One token after the other: a forward with the keys and values of a static cache, and argmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecompile.bench.peers.contract import Job, Workload
from sparsecompile.bench.peers.models import smollm2
from sparsecompile.bench.peers.torch_task import Function, TorchTask, dtype_of

STEPS = 32
"""Tokens of a sample; the cache has room for so many after the context."""


class SmolLM2Decode(Workload):
    """`token -> argmax(logits)` after a context; its size is the context's, in tokens."""

    name, kind, unit = "smollm2-decode", "decode", "tokens"
    sizes = (128,)

    def label(self, size: int) -> str:
        """`context 128`."""
        return f"context {size}"

    def missing(self, model: str | None) -> str | None:
        """Transformers and the model."""
        return smollm2.missing(model)

    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        """The step is compiled, the context is not; every sample begins after the context."""
        from transformers import StaticCache

        model, _ = smollm2.load(dtype_of(dtype), job.model)
        cache = StaticCache(config=model.config, max_cache_len=job.size + STEPS)
        ids = torch.arange(job.size)[None] % model.config.vocab_size
        with torch.no_grad():
            first = model(ids, past_key_values=cache, logits_to_keep=1).logits.argmax(-1)

        def step(token: Tensor, position: Tensor) -> Tensor:
            out = model(token, position_ids=position, past_key_values=cache)
            best: Tensor = out.logits[:, -1:].argmax(-1)
            return best

        positions = torch.arange(job.size, job.size + STEPS).view(-1, 1, 1)

        def sample(compiled: Function) -> None:
            rewind(cache, job.size)
            token = first
            for position in positions:
                token = compiled(token, position)

        what = f"{dtype}, cache of {job.size + STEPS}"
        return TorchTask(model, step, sample, STEPS, STEPS, what)


def rewind(cache: Any, length: int) -> None:
    """Make a static cache forget what came after the first tokens."""
    for layer in cache.layers:
        layer.cumulative_length.fill_(length)


COMPONENTS = (SmolLM2Decode(),)
