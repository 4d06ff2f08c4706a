"""Prune a language model to 2:4, compile it with `backend="sparse"`, generate text.

Run it with `uv run --extra models examples/quickstart.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from smollm2 import load
from torch import nn

import sparsecompile

PROMPT = "What is the sun?"
TOKENS = 64


@torch.no_grad()
def prune_2_4(module: nn.Module) -> None:
    """Set the two smallest of every four neighbouring weights of its linears to zero."""
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            fours = linear.weight.view(-1, 4)
            fours.scatter_(1, fours.abs().argsort(dim=1)[:, :2], 0.0)


def main() -> None:
    """Prune, compile, generate; then check that the compiled model computes what it did before."""
    with timed("load SmolLM2-135M-Instruct"):
        model, tokenizer = load()
    with timed("prune the linears of its layers to 2:4"):
        prune_2_4(model.model.layers)

    chat = [{"role": "user", "content": PROMPT}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )

    def generate() -> tuple[torch.Tensor, torch.Tensor]:
        """The most probable tokens, and the logits that each was chosen by."""
        output = model.generate(
            **inputs,
            max_new_tokens=TOKENS,
            do_sample=False,
            cache_implementation="static",
            return_dict_in_generate=True,
            output_logits=True,
        )
        return output.sequences[0, inputs.input_ids.shape[1] :], torch.cat(output.logits)

    with timed(f"generate {TOKENS} tokens, dense"):
        dense_tokens, dense_logits = generate()
    with timed("explain a step of one token"):
        report = sparsecompile.explain(model, inputs.input_ids[:, :1])

    model.compile(backend="sparse")
    with timed(f"compile, then generate {TOKENS} tokens"):
        generate()
    with timed(f"generate {TOKENS} tokens, compiled"):
        tokens, logits = generate()

    print(f"\n{report}\n\n{PROMPT}\n{tokenizer.decode(tokens)}\n")
    print("That is no prose: pruning so small a model without training it afterwards ruins it.")

    same = torch.equal(tokens, dense_tokens)
    error = float((logits - dense_logits).abs().max() / dense_logits.abs().max())
    print(f"The same tokens as before compiling: {same}; logits within {error:.0e} of the largest.")
    assert same
    assert error < 1e-4
    # What is faster dense stays dense, and says so.
    assert all(node.packed or node.reason for node in report.nodes)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took."""
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:6.1f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
