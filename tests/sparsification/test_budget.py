"""Budgets are met, and spent where they save most."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sparsification.small import ids, rows, stack, transformer
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.sparsification.allocation import divergence
from sparsecompile.sparsification.budget import Option, spend

CHOICES = ["dense", "3:4", "2:4", "1:4"]
number = st.integers(1, 50).map(float)
option = st.builds(Option, number, number)


@example([[Option(1, 10), Option(10, 2), Option(11, 1.5)]], 5)
@given(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=4), number)
def test_what_is_spent(options: list[list[Option]], limit: float) -> None:
    """Within the limit, and on the frontier no worse than any choice at all."""
    all_choices = [
        (sum(o.cost for o in choice), sum(o.loss for o in choice))
        for choice in itertools.product(*options)
    ]
    spent = spend(options, limit)
    if spent is None:
        assert min(cost for cost, _ in all_choices) > limit
        return
    chosen = [choices[i] for choices, i in zip(options, spent.chosen, strict=True)]
    assert spent.cost == sum(o.cost for o in chosen) <= limit
    assert spent.loss == sum(o.loss for o in chosen)
    # The best at some price: nothing that costs as little loses less.
    for point in spent.frontier:
        assert point.loss <= min(loss for cost, loss in all_choices if cost <= point.cost)
    # One step at most is what separates the choice from the best that there is.
    best = min(loss for cost, loss in all_choices if cost <= limit)
    below = [p for p in spent.frontier if p.cost <= limit]
    assert best <= spent.loss <= below[-1].loss


def test_a_budget_is_met_and_beats_one_pattern_for_all(tmp_path: Path) -> None:
    model = transformer("LlamaForCausalLM", "LlamaConfig")
    with torch.no_grad():
        # Layers matter less the later they come.
        for i, layer in enumerate(model.model.layers):
            layer.mlp.down_proj.weight /= 10**i
            layer.self_attn.o_proj.weight /= 10**i
    held = ids()[-1]
    reference = model(held, use_cache=False)
    lost = {}
    for name, asked in {
        "uniform": {"pattern": "2:4"},
        "chosen": {"pattern": CHOICES, "budget": {"bytes": 0.53125}},
    }.items():
        changed = transformer("LlamaForCausalLM", "LlamaConfig")
        changed.load_state_dict(model.state_dict())
        report = sc.sparsify(changed, **asked, calibration=ids())
        lost[name] = divergence(changed(held, use_cache=False), reference)
    assert lost["chosen"] < 0.5 * lost["uniform"], lost
    found = report.allocation
    assert found is not None
    assert found.cost <= found.limit == 0.53125 * found.dense
    assert found.cost > 0.98 * found.limit
    assert found.uniform["2:4"].cost == found.limit
    assert found.loss < found.uniform["2:4"].loss
    kept = {w.name: w.pattern for w in report.weights}
    assert kept == {name: text for name, text in found.patterns.items() if text != "dense"}
    assert found.patterns["model.layers.2.mlp.down_proj"] == "1:4"
    dense = {name for name, text in found.patterns.items() if text == "dense"}
    for name, module in changed.named_modules():
        if name in dense:
            assert torch.equal(module.weight, model.get_submodule(name).weight)  # type: ignore[arg-type]
    text = " ".join(str(report).split())
    assert re.search(r"bytes: 0\.5\d\d of dense, at most 0\.531; loss of the held batch", text)
    assert json.loads(report.to_json())["allocation"]["unit"] == "bytes"
    report.plot(tmp_path / "frontier.svg")
    assert "best choices" in (tmp_path / "frontier.svg").read_text()


def test_density_of_models_without_logits() -> None:
    model, dense = stack(), stack()
    asked = {"0": ["dense"], "*": ["dense", "2:4", "1:4"]}
    report = sc.sparsify(model, asked, budget={"density": 0.6}, calibration=rows())
    found = report.allocation
    assert found is not None
    assert set(found.options) == {"2", "4"}
    assert torch.equal(model[0].weight, dense[0].weight)
    assert report.kept <= 0.6
    x = rows()[-1]
    with torch.no_grad():
        assert 0 < divergence(model(x), dense(x)) < 1


def test_milliseconds_are_those_of_the_tuner(tuned: Tuned) -> None:
    """Packed linears take half of what dense ones do, here."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    report = sc.sparsify(
        model,
        ["dense", "2:4", "int4"],
        budget={"milliseconds": 0.75},
        calibration=rows(columns=64),
    )
    found = report.allocation
    assert found is not None
    assert tuned.measured
    for options in found.options.values():
        assert options["2:4"].cost == options["int4"].cost == options["dense"].cost / 2
    assert sorted(found.patterns.values()) == ["dense", "int4"]


@pytest.mark.parametrize(
    ("given", "option", "why"),
    [
        (
            {"budget": {"density": 0.2}},
            "budget",
            r"0\.2 of dense cannot be met: the cheapest",
        ),
        (
            {"budget": {"seconds": 0.2}},
            "budget",
            "bytes, milliseconds; not {'seconds'",
        ),
        ({"budget": {"bytes": 2}}, "budget", "must be a share, above 0 and at most 1"),
        ({"budget": 0.5}, "budget", "must be a share"),
        ({"pattern": "2:4"}, "pattern", r"must be lists such as \['dense', '2:4'\], or a mapping"),
        ({"budget": None}, "pattern", "lists go with a budget"),
        (
            {"calibration": None, "method": "magnitude"},
            "calibration",
            "budget needs calibration: a list of batches",
        ),
    ],
)
def test_budgets_that_cannot_be(given: dict[str, Any], option: str, why: str) -> None:
    model, before = stack(), stack()
    asked = {"pattern": CHOICES, "budget": {"density": 0.5}, "calibration": rows(), **given}
    with pytest.raises(sc.OptionError, match=why) as caught:
        sc.sparsify(model, asked.pop("pattern"), **asked)
    assert caught.value.option == option
    assert all(map(torch.equal, model.parameters(), before.parameters()))


def test_no_plot_without_a_budget_or_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = sc.sparsify(stack(), "2:4", method="magnitude")
    with pytest.raises(sc.OptionError, match="there is a frontier where there was a budget"):
        report.plot(tmp_path / "a.png")
    report = sc.sparsify(stack(), CHOICES, budget={"density": 0.5}, calibration=rows())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(sc.SparseCompileError, match="a plot needs matplotlib"):
        report.plot(tmp_path / "a.png")
