"""Compile a language model that was quantised to 4 bits, with `backend="sparse"`: it says the same.

Its file holds 4 bits a weight, and torch has made floats of them. Run it with
`uv run --extra models examples/quickstart.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from smollm2 import load

import sparsecompile

PROMPT = "What is the sun?"
TOKENS = 64


def main() -> None:
    """Generate, compile, generate again; check that the compiled model computes what it did."""
    with timed("load SmolLM2-135M-Instruct"):
        model, tokenizer = load()
    chat = [{"role": "user", "content": PROMPT}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )

    def generate() -> tuple[torch.Tensor, torch.Tensor, float]:
        """The most probable tokens, the logits that each was chosen by, and tokens a second."""
        start = time.perf_counter()
        output = model.generate(
            **inputs,
            max_new_tokens=TOKENS,
            do_sample=False,
            cache_implementation="static",
            return_dict_in_generate=True,
            output_logits=True,
        )
        speed = len(output.logits) / (time.perf_counter() - start)
        return output.sequences[0, inputs.input_ids.shape[1] :], torch.cat(output.logits), speed

    with timed("generate, as it is"):
        dense_tokens, dense_logits, dense_speed = generate()
    with timed("explain a step of one token"):
        report = sparsecompile.explain(model, inputs.input_ids[:, :1])

    model.compile(backend="sparse")
    with timed("compile, then generate"):
        generate()
    with timed("generate, compiled"):
        tokens, logits, speed = generate()

    print(f"\n{report}\n\n{PROMPT}\n{tokenizer.decode(tokens, skip_special_tokens=True)}\n")
    same = torch.equal(tokens, dense_tokens)
    error = float((logits - dense_logits).abs().max() / dense_logits.abs().max())
    print(f"The same tokens as before compiling: {same}; logits within {error:.0e} of the largest.")
    print(
        f"{dense_speed:.1f} -> {speed:.1f} tokens/s, "
        f"{report.dense_bytes / 1e6:.0f} -> {report.packed_bytes / 1e6:.0f} MB of weights."
    )
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
