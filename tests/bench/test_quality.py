"""`sparsecompile bench quality` on a model that says nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from sparsecompile.bench.peers.models import smollm2
from sparsecompile.bench.quality.recipes import CALIBRATED, DEFAULT, Recipe, recipes_of
from sparsecompile.codegen.cpp import machine
from sparsecompile.codegen.cpp.machine import Machine
from sparsecompile.commands.app import app
from sparsecompile.errors import OptionError
from sparsecompile.options.options import Options

transformers = pytest.importorskip("transformers")
MACHINE = Machine("a CPU", 2, 2e10, 1e10, 1 << 20, 1 << 25, 1e11, 2e11, 4e11, "fma", "dp", "vnni")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny Llama, and a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "measure_machine", lambda threads: MACHINE)
    torch.manual_seed(0)
    words = {f"w{i}": i for i in range(96)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(tmp_path / "model")
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    text = " ".join(f"w{int(i)}" for i in torch.randint(0, 96, (400,)))
    (tmp_path / "text.txt").write_text(text)
    return tmp_path


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ("bench", "quality", "model", "--text", "text.txt", *words))


def rows_of(checkpoint: Path, *words: str) -> list[dict[str, Any]]:
    result = bench("--json", "out.json", *words)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads((checkpoint / "out.json").read_text())["rows"]
    return rows


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
def test_speed_is_that_of_the_compiled_models(checkpoint: Path) -> None:
    words = ("--recipe", "quantize=int8-weight-only", "--rounds", "1")
    dense, packed = rows_of(checkpoint, *words, "--length", "136", "--windows", "2")
    assert (dense["recipe"], dense["packed"], dense["over_dense"]) == ("dense", "", 0)
    assert packed["recipe"] == "quantize=int8-weight-only"
    assert packed["packed"] == "8 of 8"
    assert packed["mbytes"] < dense["mbytes"] / 3
    for row in (dense, packed):
        # Of random weights it is about the number of words.
        assert 80 < row["perplexity"] < 120
        assert min(row["decode"], row["prefill"], row["decode_ratio"], row["prefill_ratio"]) > 0


def test_perplexity_is_that_of_the_recipe(checkpoint: Path) -> None:
    texts = ("quantize=ternary", "sparsify=2:4+method=wanda", "sparsify=2:4+method=magnitude")
    asked = [word for text in texts for word in ("--recipe", text)]
    fixed = ("--rounds", "0", "--length", "50", "--windows", "3", "--calibration", "text.txt")
    # A limit that one model after the other would hit.
    with torch._dynamo.config.patch(recompile_limit=2):
        rows = rows_of(checkpoint, *asked, *fixed)
    assert all(row["packed"].endswith(" of 8") for row in rows[1:])
    assert [row["recipe"] for row in rows] == ["dense", *texts]
    assert len({row["perplexity"] for row in rows}) == len(rows)
    assert [row["decode"] for row in rows] == [0.0] * len(rows)
    model = transformers.LlamaForCausalLM.from_pretrained(checkpoint / "model").eval()
    ids = transformers.AutoTokenizer.from_pretrained(checkpoint / "model")(
        (checkpoint / "text.txt").read_text(), return_tensors="pt"
    ).input_ids[:, :150]
    with torch.no_grad():
        # As Transformers has it.
        losses = [model(input_ids=part, labels=part).loss for part in ids.split(50, 1)]
    eager = math.exp(torch.stack(losses).mean())
    assert rows[0]["perplexity"] == pytest.approx(eager, rel=1e-5)
    assert rows[1]["over_dense"] == pytest.approx(
        100 * (rows[1]["perplexity"] / eager - 1), abs=1e-2
    )


def test_recipes() -> None:
    for text in (*DEFAULT, *CALIBRATED):
        recipe = Recipe.of(text)
        assert recipe.text == text
        Options.of(recipe.options)
    assert [recipe.text for recipe in recipes_of((), calibrated=True)] == [*DEFAULT, *CALIBRATED]
    asked = recipes_of(["sparsify=4:8+method=magnitude"], calibrated=False)
    assert asked == [
        Recipe("dense"),
        Recipe("sparsify=4:8+method=magnitude", {}, "4:8", "magnitude"),
    ]
    with pytest.raises(OptionError, match=r"sparsify=2:4 needs --calibration FILE"):
        recipes_of(["sparsify=2:4"], calibrated=False)
    for text in ("int4", "quantize=", "tune=off", "prune=2:4+prune=1:4"):
        with pytest.raises(OptionError, match=r"is not like prune=2:4\+quantize=int4; parts are"):
            Recipe.of(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dtype", "int8"), "'int8' is none of float32, bfloat16, float16"),
        (("--length", "100"), "100 tokens are fewer than the 136 that decoding takes"),
        (("--length", "500"), "text.txt has 400 tokens, fewer than --length 500"),
    ],
)
def test_what_cannot_be_measured(checkpoint: Path, words: tuple[str, ...], message: str) -> None:
    result = bench(*words)
    assert result.exit_code == 1
    assert message in result.stderr


def test_smollm2_is_for_a_checkout_and_has_to_be_installed(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bench", "quality", "--text", "text.txt")
    monkeypatch.setattr(smollm2, "missing", lambda model: "not installed: pip install gguf")
    result = CliRunner().invoke(app, words)
    assert "smollm2 cannot be loaded: not installed: pip install gguf" in result.stderr
    monkeypatch.setitem(__import__("sys").modules, "sparsecompile.bench.peers", None)
    result = CliRunner().invoke(app, words)
    assert "bench quality smollm2 is left out of the package" in result.stderr
