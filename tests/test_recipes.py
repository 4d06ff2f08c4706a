"""What patterns of names match, and how formats are spelt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsecompile as sc
from sparsecompile.options.recipes import check_patterns, matches


def test_recipes_for_every_weight_are_right_for_a_model_without_one() -> None:
    check_patterns({"prune": {"*": "2:4"}}, ())
    with pytest.raises(sc.OptionError, match=r"'a' of option 'prune' matches no weight matrix\Z"):
        check_patterns({"prune": {"a": "2:4"}}, ())


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("*.mlp.*", "mlp.fc1.weight", True),
        ("*.mlp.*", "a.mlp.fc1.weight", True),
        ("*.mlp.*", "a.mlps.fc1.weight", False),
        ("*.mlp.*", "smlp.fc1.weight", False),
        ("head", "head.weight", True),
        ("head", "head.bias.weight", False),
        ("head", "ahead.weight", False),
        ("weight", "weight", True),
        ("l.{0-9}.{2,4-5}", "l.7.4.weight", True),
        ("l.{0-9}.{2,4-5}", "l.7.3.weight", False),
        ("l.{0-9}", "l.10.weight", False),
        ("l.{a}", "l.{a}.weight", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) == found


FORMATS: list[tuple[list[str], str]] = [
    (["2:4"], "n_m[2:4]/float"),
    (["n_m[2:4]"], "n_m[2:4]/float"),
    (["2:4/float"], "n_m[2:4]/float"),
    (["unstructured"], "bitmap/float"),
    (["block(16, 16)"], "block[16x16]/float"),
    (["3:8", "unstructured"], "bitmap/float"),
]


@pytest.mark.parametrize(("names", "format"), FORMATS)
def test_formats_are_spelt_as_recipes_are(names: list[str], format: str) -> None:
    model = nn.Linear(32, 32).requires_grad_(False)
    structure = sc.Block(16, 16) if "block" in names[0] else sc.NM(2, 4)
    model.weight.mul_(structure.prune(model.weight, 0.5 if "block" in names[0] else None))
    (node,) = sc.explain(model, torch.randn(2, 32), formats=names).nodes
    assert node.format == format
    assert len([f for f in node.findings if "/" in f.format]) == len(names)


@pytest.mark.parametrize("name", ["unstructured(0.8)", "4:2", "block(16)"])
def test_formats_that_do_not_exist(name: str) -> None:
    with pytest.raises(sc.RegistrationError):
        sc.Compiler(formats=[name])
