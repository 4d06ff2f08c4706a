"""examples/decode.py, with a model that says nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")


class Words:
    """Stands for a tokenizer."""

    def apply_chat_template(self, *_: object, **__: object) -> Any:
        return transformers.BatchEncoding({"input_ids": torch.arange(9)[None]})

    def decode(self, tokens: Any, **_: object) -> str:
        return " ".join(f"w{int(token)}" for token in tokens)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_layer_is_five_calls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import decode

    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(config).bfloat16().eval()
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    monkeypatch.setattr(decode, "load", lambda dtype: (model, Words()))
    monkeypatch.setattr(decode, "TOKENS", 4)
    decode.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("A layer is k_proj+q_proj+v_proj | self_attn | o_proj +add | gate")
    assert "tokens/s  sparse, int4" in lines[1]


def test_the_first_token_that_differs() -> None:
    import decode

    first, second = torch.tensor([1, 2, 3]), torch.tensor([1, 5, 3])
    assert decode.difference(first, first, Words()) == "The same tokens as in bfloat16."
    said = decode.difference(first, second, Words())
    assert said == "Token 1 is the first that differs: 'w5', in bfloat16 'w2'."
