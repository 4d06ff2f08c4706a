"""The forward of a prompt: keys and values of all its tokens, and the token after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecompile.bench.peers.contract import Job, Workload
from sparsecompile.bench.peers.models import smollm2
from sparsecompile.bench.peers.torch_task import Function, TorchTask, dtype_of


class SmolLM2Prefill(Workload):
    """Its size is the prompt's, in tokens."""

    name, kind, unit = "smollm2-prefill", "prefill", "tokens"
    sizes = (128, 512)

    def label(self, size: int) -> str:
        """`prompt of 128`."""
        return f"prompt of {size}"

    def missing(self, model: str | None) -> str | None:
        """Transformers and the model."""
        return smollm2.missing(model)

    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        """The whole forward is compiled; it returns the cache."""
        model, _ = smollm2.load(dtype_of(dtype), job.model)
        ids = torch.arange(job.size)[None] % model.config.vocab_size

        def prefill(prompt: Tensor) -> tuple[Tensor, list[tuple[Any, Any]]]:
            out = model(prompt, use_cache=True, logits_to_keep=1)
            kept = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
            return out.logits.argmax(-1), kept

        def sample(compiled: Function) -> None:
            compiled(ids)

        return TorchTask(model, prefill, sample, job.size, 1, dtype)


COMPONENTS = (SmolLM2Prefill(),)
