"""`Int8Cache`: tokens are those of the model with the same cache, and attention reads int8."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsecompile as sc
from sparsecompile.testing.laws import assert_no_worse

transformers: Any = pytest.importorskip("transformers")
LENGTH = 40


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def prompt(batch: int = 1) -> Tensor:
    return torch.randint(3, 64, (batch, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_generated_tokens_are_the_same() -> None:
    model, x = llama(), prompt()
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False}
    expected = model.generate(x, cache=sc.Int8Cache(model.config, LENGTH), **options)
    compiler = sc.Compiler()
    model.forward = torch.compile(model.forward, backend=compiler)
    cache = sc.Int8Cache(model.config, LENGTH)
    assert torch.equal(model.generate(x, cache=cache, **options), expected)
    attentions = [node for node in compiler.report.nodes if node.reader == "attention"]
    # A prompt and a step.
    assert len(attentions) == 4
    assert all("kv=int8" in node.problem for node in attentions)
    assert cache.layers[0].keys.dtype == torch.int8


@torch.no_grad()
def test_states_are_rounded_by_row() -> None:
    cache = sc.Int8Cache(llama().config, LENGTH)
    states = [torch.randn(2, 2, 5, 16) * torch.rand(2, 2, 5, 1) for _ in range(4)]
    states[0][0, 0, 0] = 0
    cache.update(states[0].bfloat16(), states[1].bfloat16(), 0)
    keys, values = cache.update(states[2].bfloat16(), states[3].bfloat16(), 0)
    assert keys.dtype == values.dtype == torch.bfloat16
    assert keys.shape == (2, 2, LENGTH, 16)
    assert cache.get_seq_length(0) == 10
    for held, given in ((keys, states[::2]), (values, states[1::2])):
        right = torch.cat(given, 2).bfloat16().float()
        # Half a scale, and one rounding to bfloat16.
        bound = right.abs().amax(-1, keepdim=True) * (1 / 254 + 2**-8)
        assert bool(((held[:, :, :10].float() - right).abs() <= bound).all())
    layer = cache.layers[0]
    assert not keys[0, 0, 0].any()
    layer.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(layer.keys[0] * layer.scales.keys[0], layer.keys[1] * layer.scales.keys[1])
    layer.crop(-4)
    assert layer.get_seq_length() == layer.scales.get_seq_length() == 6
    layer.offload()
    layer.prefetch()
    layer.reset()
    assert layer.get_seq_length() == layer.scales.get_seq_length() == 0
    assert not layer.scales.keys.any()


@torch.no_grad()
def test_room_may_be_made_before() -> None:
    cache = sc.Int8Cache(llama().config, LENGTH)
    cache.early_initialization(1, 2, 16, torch.bfloat16, torch.device("cpu"))
    assert cache.layers[1].values.dtype == torch.int8
    assert cache.layers[1].scales.values.shape == (1, 2, LENGTH, 1)


def test_windows_stay_as_they_are() -> None:
    config = transformers.Gemma3TextConfig(
        num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"], sliding_window=8
    )
    names = [type(layer).__name__ for layer in sc.Int8Cache(config, LENGTH).layers]
    assert names == ["StaticSlidingWindowLayer", "Int8Layer"]


@torch.no_grad()
def test_steps_are_no_worse_than_the_model_s() -> None:
    model, x = llama(), prompt(2)

    def last(model: Any, run: Any) -> Tensor:
        cache = sc.Int8Cache(model.config, LENGTH)
        run(x[:, :-1], cache=cache)
        logits: Tensor = run(x[:, -1:], cache=cache).logits
        return logits

    ours, eager = last(model, torch.compile(model, backend="sparse")), last(model, model)
    wide = llama().double()
    assert_no_worse(ours, eager, last(wide, wide))


def test_what_is_needed_is_said() -> None:
    script = """
import sys, sparsecompile
sys.modules["transformers"] = None
try:
    sparsecompile.Int8Cache
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("Int8Cache is a cache of transformers' models, which cannot be")
    assert done.stdout.rstrip().endswith("pip install 'transformers>=5'")
