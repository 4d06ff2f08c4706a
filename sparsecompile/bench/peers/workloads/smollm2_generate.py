"""`generate` of Transformers, greedy, with a static cache."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch

from sparsecompile.bench.peers.contract import Job, Workload
from sparsecompile.bench.peers.models import smollm2
from sparsecompile.bench.peers.prepared import Sample
from sparsecompile.bench.peers.torch_task import Function, TorchTask, dtype_of

TOKENS = 32


class SmolLM2Generate(Workload):
    """A prompt, and 32 tokens after it; its size is the prompt's, in tokens.

    The time is that of the whole call, the prompt included; `overhead` is what of it passes outside
    of the model.
    """

    name, kind, unit = "smollm2-generate", "generate", "tokens"
    sizes = (128,)

    def label(self, size: int) -> str:
        """`prompt of 128, 32 tokens`."""
        return f"prompt of {size}, {TOKENS} tokens"

    def missing(self, model: str | None) -> str | None:
        """Transformers and the model."""
        return smollm2.missing(model)

    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        """The model's forward is compiled, generate is not."""
        model, _ = smollm2.load(dtype_of(dtype), job.model)
        ids = torch.arange(job.size)[None] % model.config.vocab_size
        options: dict[str, Any] = {
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": TOKENS,
            "min_new_tokens": TOKENS,
            "do_sample": False,
            "cache_implementation": "static",
        }
        forward = model.forward

        def sample(compiled: Function) -> Sample:
            inside = 0.0

            @functools.wraps(forward)
            def timed(*args: Any, **kwargs: Any) -> Any:
                nonlocal inside
                start = time.perf_counter()
                out = compiled(*args, **kwargs)
                inside += time.perf_counter() - start
                return out

            model.forward = timed
            start = time.perf_counter()
            model.generate(ids, **options)
            return {"overhead": time.perf_counter() - start - inside}

        return TorchTask(model, forward, sample, TOKENS, TOKENS, f"{dtype}, static cache")


COMPONENTS = (SmolLM2Generate(),)
