"""Recipe: what is asked for as a file, ours and llm-compressor's."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsification.small import ids, rows, stack, transformer
from torch import nn

import sparsecompile as sc

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
PATTERNS = st.one_of(TEXTS, st.lists(TEXTS, max_size=3), st.dictionaries(TEXTS, TEXTS, max_size=3))


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recipe.{suffix}"

    @settings(max_examples=25)
    @given(PATTERNS, st.sampled_from(({}, {"damp": 1e-05, "strip": 64})), st.booleans())
    def run(pattern: Any, options: dict[str, float], correct: bool) -> None:
        budget = {"bytes": 0.5} if correct else None
        recipe = sc.Recipe(pattern, "wanda", options, budget, correct, 0.25 if correct else None)
        recipe.to_file(path)
        assert sc.Recipe.from_file(path) == recipe

    run()


def test_a_file_reads_well(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    sc.Recipe({"head": None, "*": "2:4"}, options={"damp": 0.1}).to_file(path)
    assert path.read_text() == (
        'pattern = {"head" = "dense", "*" = "2:4"}\nmethod = "sparsegpt"\n'
        'options = {"damp" = 0.1}\ncorrect_bias = false\n'
    )


def test_it_does_what_sparsify_does(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        'pattern = {"2" = "dense", "*" = "2:4"}\noptions = {damp = 1.0}\n'
    )
    found = stack()
    report = sc.Recipe.from_file(tmp_path / "r.toml").apply(found, rows(), progress=False)
    assert [w.name for w in report.weights] == ["0", "4"]
    assert "damp=1.0" in report.method
    expected = stack()
    pattern = {"2": None, "*": "2:4"}
    sc.sparsify(expected, pattern, method="sparsegpt", calibration=rows())
    assert not torch.equal(found[0].weight, expected[0].weight)
    assert torch.equal(found[2].weight, expected[2].weight)


FOREIGN = """\
pruning_stage:
  run_type: oneshot
  sparsity_modifiers:
    SparseGPTModifier:
      sparsity: 0.75
      mask_structure: "{mask}"
      dampening_frac: 0.02
      block_size: 64
      sequential_targets: [LlamaDecoderLayer]
      preserve_sparsity_mask: false
      sparsity_profile: null
      targets: [{targets}]
      ignore: ["re:.*lm_head", "re:.*layers.1$", model.layers.2.mlp]
finetuning_stage:
  run_type: train
  pruning_modifiers:
    ConstantPruningModifier:
      targets: ["re:.*q_proj.weight"]
      start: 0
"""


def test_a_recipe_of_llm_compressor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(FOREIGN.format(mask="1:4", targets="Linear"))
    with caplog.at_level(logging.INFO, "sparsecompile"):
        recipe = sc.Recipe.from_file(path)
    assert "'sequential_targets' is of no use here" in caplog.text
    assert "KeepZeros keeps zeros while training" in caplog.text
    assert (recipe.method, recipe.options) == ("sparsegpt", {"damp": 0.02, "strip": 64})
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    report = recipe.apply(model, ids())
    # It is one of four that goes.
    assert {w.pattern for w in report.weights} == {"3:4"}
    assert {w.name for w in report.weights} == {
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear)
        and not re.match(r"lm_head|model\.layers\.1\.|model\.layers\.2\.mlp\.", name)
    }
    recipe.to_file(path)
    assert sc.Recipe.from_file(path) == recipe


@pytest.mark.parametrize("target", ['"re:model.layers.\\\\d+$"', '"re:.*_proj"', "model.layers.0"])
def test_targets_are_modules_or_what_they_are_in(tmp_path: Path, target: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(FOREIGN.format(mask="0:0", targets=target))
    recipe = sc.Recipe.from_file(path)
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    report = recipe.apply(model, ids())
    assert {w.pattern for w in report.weights} == {"unstructured(0.75)"}
    assert len(report.weights) == (7 if target == "model.layers.0" else 7 + 4)


def test_keeping_zeros_alone_prunes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a_stage:\n  b_modifiers:\n    ConstantPruningModifier:\n      start: 0\n")
    assert sc.Recipe.from_file(path).apply(stack()).weights == ()


def modifier(name: str, text: str) -> str:
    return f"a_modifiers: {{{name}: {{{text}}}}}"


REFUSALS = {
    "patern = '2:4'": "it has no 'pattern'",
    "pattern = '2:4'\ncolour = 1": "has no option 'colour'; it has: pattern, method, options",
    "pattern = ": "is no TOML: Invalid value",
    "pattern: [": "is no YAML: while parsing",
    modifier("QuantizationModifier", ""): "QuantizationModifier is not known here; known are",
    modifier("WandaPruningModifier", "block_size: 3"): "block_size=3 is not known here; sparsity",
    modifier("SparseGPTModifier", "preserve_sparsity_mask: true"): "mask=True is not known here",
    modifier("WandaPruningModifier", "mask_structure: x"): "mask_structure 'x' is not such as",
    modifier("WandaPruningModifier", "targets: Linear"): "sparsity is None, not a share",
    "a_modifiers: {WandaPruningModifier: {}, SparseGPTModifier: {}}": "all prune: give each a file",
    "a_modifiers: {}\nmetadata: {}": "'metadata' is neither a stage nor modifiers",
}


@pytest.mark.parametrize("text", REFUSALS, ids=REFUSALS.values())
def test_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / ("r.toml" if "=" in text else "r.yaml")
    path.write_text(text)
    with pytest.raises(sc.OptionError, match=re.escape(REFUSALS[text])) as caught:
        sc.Recipe.from_file(path)
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sc.OptionError, match=r"a recipe is a file \.toml, \.yaml, \.yml"):
        sc.Recipe("2:4").to_file(tmp_path / "recipe.txt")
    with pytest.raises(sc.OptionError, match=r"none\.toml: cannot be read: .*No such file"):
        sc.Recipe.from_file(tmp_path / "none.toml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(sc.OptionError, match=r"\.yaml needs PyYAML: pip install pyyaml"):
        sc.Recipe("2:4").to_file(tmp_path / "recipe.yaml")


def test_options_that_the_method_has_not() -> None:
    for method, known in (("sparsegpt", "damp, strip"), ("wanda", "scope")):
        with pytest.raises(sc.OptionError, match=f"has no option 'dump'; it has: {known}"):
            sc.Recipe("2:4", method, {"dump": 1}).apply(stack(), rows())


def test_what_is_no_regular_expression() -> None:
    with pytest.raises(sc.OptionError, match=r"'re:\(' holds no regular expression: missing \)"):
        sc.sparsify(stack(), {"re:(": "2:4"}, method="magnitude")
