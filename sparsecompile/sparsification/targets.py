"""Targets: the linears of a model that get a pattern, and those that are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sparsecompile.errors import ModelError, OptionError, Reject
from sparsecompile.options.recipes import check_patterns, recipe_for
from sparsecompile.sparsification.pattern import DENSE, Pattern
from sparsecompile.storage.compress import COMPUTED


@dataclass(frozen=True, eq=False)
class Target:
    """A linear that gets a pattern.

    Attributes:
        name: of the module in the model.
    """

    name: str
    linear: nn.Linear
    pattern: Pattern


def find_targets(model: nn.Module, asked: object) -> list[Target]:
    """Linears and their patterns, in the order of the model; each weight once.

    Args:
        model: the model.
        asked: a pattern for every linear but those that are tied to an embedding and the output
            head of a Transformers model, or a mapping from name patterns to patterns, None for what
            is to be left alone; the first that matches counts.

    Raises:
        OptionError: neither, no such pattern, one that matches nothing, or that does not divide a
            weight.
        ModelError: a weight that is asked for has no values or cannot be written.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    if isinstance(asked, str):
        asked = {**dict.fromkeys(_heads(model, linears)), "*": asked}
    if not isinstance(asked, Mapping) or not all(
        isinstance(key, str) and isinstance(text, str | None) for key, text in asked.items()
    ):
        raise OptionError(
            "pattern",
            "the pattern must be a string such as '2:4', or a mapping from patterns of weight "
            f"names to strings or None, not {asked!r}",
        )
    check_patterns({"pattern": asked}, [f"{name}.weight" for name in linears], "nn.Linear")
    patterns = {key: Pattern.parse(text or DENSE) for key, text in asked.items()}
    found: dict[int, Target] = {}
    for name, linear in linears.items():
        try:
            pattern = recipe_for("pattern", patterns, (f"{name}.weight",))
        except Reject:
            continue
        if pattern.structure is not None or pattern.codec is not None:
            _check(name, linear, pattern)
            found.setdefault(id(linear.weight), Target(name, linear, pattern))
    return list(found.values())


def _heads(model: nn.Module, linears: Mapping[str, nn.Linear]) -> list[str]:
    """Names of the output head and of what shares its weight with an embedding."""
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return [
        name for name, m in linears.items() if m is head or id(m._parameters.get("weight")) in tied
    ]


def _check(name: str, linear: nn.Linear, pattern: Pattern) -> None:
    weight = linear._parameters.get("weight")
    if weight is None:
        raise ModelError(f"{name}: {COMPUTED}")
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        raise ModelError(
            f"the weight of {name!r} is {type(weight).__name__} of {weight.dtype}, which has no "
            "values that can be set one by one: sparsify a model before it is packed or quantised"
        )
    if weight.is_meta:
        raise ModelError(
            f"the weight of {name!r} is on the meta device, which holds no values: load the "
            "checkpoint first"
        )
    if not bool(torch.isfinite(weight).all()):
        row, column = (~torch.isfinite(weight)).nonzero()[0].tolist()
        raise ModelError(
            f"the weight of {name!r} holds {float(weight[row, column])} in row {row}, column "
            f"{column}: sparsify takes finite weights"
        )
    pattern.check(name, (weight.shape[0], weight.shape[1]))
