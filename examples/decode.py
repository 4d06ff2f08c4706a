"""Generate with a language model in bfloat16, by Inductor and by `backend="sparse"` with 4 bits.

Rounding to 4 bits is lossy, so tokens may differ: the first that does is named. Run it with
`uv run --extra models examples/decode.py`.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from smollm2 import load

import sparsecompile
from sparsecompile import GraphReport

PROMPT = "What is the sun?"
TOKENS = 48


def main() -> None:
    """Tokens a second of both, whether they say the same, and what a layer has become."""
    model, tokenizer = load(torch.bfloat16)
    chat = [{"role": "user", "content": PROMPT}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    compiler = sparsecompile.Compiler(quantize="int4")
    found = {}
    for name, backend in (("inductor", "inductor"), ("sparse, int4", compiler)):
        torch.compiler.reset()
        model.forward = torch.compile(type(model).forward.__get__(model), backend=backend)
        generate(model, inputs)
        tokens, speed = generate(model, inputs)
        found[name] = tokens
        print(f"{speed:6.1f} tokens/s  {name}", flush=True)

    dense, ours = found.values()
    print(f"\n{PROMPT}\n{tokenizer.decode(ours, skip_special_tokens=True)}\n")
    print(difference(dense, ours, tokenizer))
    calls = calls_of(compiler.report.graph_reports[-1], "model.layers.0.")
    print("A layer is " + " | ".join(calls))
    assert len(calls) == 5


def generate(model: Any, inputs: Any) -> tuple[torch.Tensor, float]:
    """The most probable tokens after the prompt, and how many of them a second."""
    start = time.perf_counter()
    output = model.generate(
        **inputs, max_new_tokens=TOKENS, do_sample=False, cache_implementation="static"
    )
    tokens = output[0, inputs.input_ids.shape[1] :]
    return tokens, len(tokens) / (time.perf_counter() - start)


def difference(dense: torch.Tensor, ours: torch.Tensor, tokenizer: Any) -> str:
    """The first token that is another one."""
    for place, (a, b) in enumerate(zip(dense.tolist(), ours.tolist(), strict=False)):
        if a != b:
            says, said = tokenizer.decode([b]), tokenizer.decode([a])
            return f"Token {place} is the first that differs: {says!r}, in bfloat16 {said!r}."
    return "The same tokens as in bfloat16."


def calls_of(graph: GraphReport, prefix: str) -> list[str]:
    """The kernel calls of a layer in a graph, such as `gate_proj+up_proj`."""
    calls = {}
    for node in graph.nodes:
        if node.weight.startswith(prefix):
            weights = [node.weight, *node.merged_with]
            parts = sorted(w.removesuffix(".weight").rpartition(".")[2] for w in weights)
            calls["+".join(parts)] = "".join(f" +{step}" for step in node.epilogue)
    return [name + epilogue for name, epilogue in calls.items()]


if __name__ == "__main__":
    main()
