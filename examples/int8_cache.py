"""A cache that holds int8, which compiled attention reads as it is: half the bytes of bfloat16.

A small Llama with random weights; nothing is downloaded. Run it with
`uv run --extra models examples/int8_cache.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import sparsecompile

TOKENS, PROMPT, NEW = 512, 32, 16
CONFIG = LlamaConfig(
    vocab_size=256,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=TOKENS,
)


def size(cache: StaticCache) -> int:
    """Bytes of keys, values and scales."""
    layers = [part for layer in cache.layers for part in (layer, getattr(layer, "scales", None))]
    return sum(t.nbytes for part in layers if part for t in (part.keys, part.values))


def last_logits(model: LlamaForCausalLM, tokens: Tensor, cache: StaticCache) -> Tensor:
    """Of the last token, which is a step of its own."""
    model(tokens[:, :-1], cache=cache)
    logits: Tensor = model(tokens[:, -1:], cache=cache).logits
    return logits


@torch.no_grad()
def main() -> None:
    """Generate with both caches, then what the report says."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval().bfloat16()
    prompt = torch.randint(3, 256, (1, PROMPT))
    exact, rounded = StaticCache(CONFIG, TOKENS), sparsecompile.Int8Cache(CONFIG, TOKENS)
    difference = last_logits(model, prompt, exact) - last_logits(model, prompt, rounded)

    compiler = sparsecompile.Compiler()
    model.forward = torch.compile(model.forward, backend=compiler)
    cache = sparsecompile.Int8Cache(CONFIG, TOKENS)
    model.generate(prompt, cache=cache, max_new_tokens=NEW, do_sample=False)
    attentions = [node for node in compiler.report.nodes if node.reader == "attention"]
    for node in attentions:
        print(f"{node.weight}: {node.problem}")
    print(f"{size(rounded):,} bytes of cache, {size(exact):,} in bfloat16")
    print(f"largest difference of logits: {float(difference.abs().max()):.1e}")
    assert attentions
    assert all("kv=int8" in node.problem for node in attentions)


if __name__ == "__main__":
    main()
