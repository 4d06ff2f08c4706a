"""`sparsecompile sparsify`: from one checkpoint to another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from sparsification.small import transformer
from typer.testing import CliRunner

import sparsecompile as sc
from sparsecompile.commands.app import app


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, its tokenizer, and a text of 400 tokens."""
    folder = tmp_path_factory.mktemp("dense")
    transformer("LlamaForCausalLM", "LlamaConfig").save_pretrained(folder)
    words = {f"w{i}": i for i in range(64)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "text").write_text(" ".join(f"w{i * i % 61 + 3}" for i in range(400)))
    return folder


def run(checkpoint: Path, out: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["sparsify", str(checkpoint), "--out", str(out), *words])
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def calibrated(checkpoint: Path) -> list[str]:
    return ["--calibration", str(checkpoint / "text"), "--length", "20", "--batches", "3"]


def test_a_sparse_checkpoint_and_its_recipe(checkpoint: Path, tmp_path: Path) -> None:
    text = run(checkpoint, tmp_path, "--pattern", "2:4", *calibrated(checkpoint))
    assert "21 weights sparsified in 3 parts by SparseGPT" in text
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert float((model.model.layers[0].mlp.up_proj.weight == 0).float().mean()) == 0.5
    assert float((model.lm_head.weight == 0).float().mean()) < 0.1
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("w7").input_ids == [7]
    assert sc.Recipe.from_file(tmp_path / "sparsify.toml") == sc.Recipe("2:4")
    again = tmp_path / "again"
    words = ["--recipe", str(tmp_path / "sparsify.toml"), *calibrated(checkpoint)]
    assert json.loads(run(checkpoint, again, *words, "--json"))["blocks"] == 3
    same = (tmp_path / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == same


def test_models_that_generate_have_a_loss(checkpoint: Path, tmp_path: Path) -> None:
    words = ["--pattern", "2:4", "--method", "taylor", *calibrated(checkpoint)]
    assert "by Taylor" in run(checkpoint, tmp_path, *words)


def test_within_a_budget(checkpoint: Path, tmp_path: Path) -> None:
    words = ["--pattern", "dense,2:4,block(4,4,0.5)", "--budget", "density=0.7"]
    found = json.loads(run(checkpoint, tmp_path, *words, *calibrated(checkpoint), "--json"))
    assert set(found["allocation"]["uniform"]) == {"dense", "2:4", "block(4,4,0.5)"}
    assert sum(w["kept"] for w in found["weights"]) > 0


def test_without_calibration_or_tokenizer(tmp_path: Path) -> None:
    transformer("BertModel", "BertConfig").save_pretrained(tmp_path / "bert")
    words = ["--pattern", "2:4", "--method", "magnitude"]
    assert "by Magnitude" in run(tmp_path / "bert", tmp_path / "out", *words)
    text = run(tmp_path / "bert", tmp_path / "out", *words, "--calibration", "x", code=1)
    assert "the checkpoint has no tokenizer" in text


def test_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(*words: str, folder: Path = checkpoint) -> str:
        return run(folder, tmp_path / "out", *words, code=1)

    either = "give either --recipe, or --pattern"
    assert either in refusal()
    assert either in refusal("--recipe", "r.toml", "--budget", "bytes=0.5")
    two_four = ["--pattern", "2:4"]
    assert "'half' is not such as 'bytes=0.6'" in refusal(*two_four, "--budget", "half")
    assert "it has no config.json" in refusal(*two_four, folder=tmp_path)
    assert "cannot be read" in refusal(*two_four, "--calibration", str(tmp_path / "none"))
    file = str(checkpoint / "text")
    assert "400 tokens, fewer than --length 1024" in refusal(*two_four, "--calibration", file)
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'transformers>=5'" in refusal(*two_four)
