"""Adapters of PEFT beside, and merged into, packed weights: it writes through `.data`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import Packing, sparse_
from torch import Tensor, nn

peft: Any = pytest.importorskip("peft")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(64, 96), nn.Linear(96, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.q_proj(x).relu())


def linears() -> tuple[nn.Module, Tensor]:
    return Net(), torch.randn(3, 64)


def llama() -> tuple[nn.Module, Tensor]:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config), torch.randint(64, (1, 5))


def result(model: Callable[..., Any], x: Tensor) -> Tensor:
    with torch.no_grad():
        y = model(x)
    return y if isinstance(y, Tensor) else y.logits


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("make", [linears, llama])
def test_adapters_come_and_go(make: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    base, x = make()
    base.requires_grad_(False).eval()
    for module in base.modules():
        if isinstance(module, nn.Linear):
            sparse_(module)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    model.add_adapter("other", config)
    backend = Packing()
    fast = torch.compile(model, backend=backend)

    def agree(compiled: Callable[..., Any] = fast, own: nn.Module = model) -> None:
        found, expected = result(compiled, x), result(own, x)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()

    agree()
    assert backend.packed
    for adapter in ("other", "default"):
        model.set_adapter(adapter)
        agree()
    with model.disable_adapter():
        agree()
    agree()
    for adapter in ("default", "other"):
        model.merge_adapter([adapter])
        agree()
        model.unmerge_adapter()
        agree()
    model.merge_adapter(["default"])
    agree()
    torch._dynamo.reset()
    agree(torch.compile(model, backend=Packing()))
    model.unmerge_adapter()
    agree(torch.compile(model, backend=Packing()))
    merged = model.merge_and_unload()
    agree(torch.compile(merged, backend=Packing()), merged)
