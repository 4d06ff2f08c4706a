"""Targets: the linears of a model that get a pattern, and those that are left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecompile.errors import ModelError, OptionError, Reject
from sparsecompile.options.recipes import check_patterns, recipe_for
from sparsecompile.sparsification.pattern import DENSE, Pattern
from sparsecompile.storage.compress import COMPUTED


@dataclass(frozen=True, eq=False)
class Target:
    """A linear that gets a pattern.

    Attributes:
        name: of the module in the model.
        linear: an `nn.Linear`, or GPT-2's `Conv1D`, whose weight is `[k, n]`.
        patterns: it, or several to choose from.
    """

    name: str
    linear: Any
    patterns: tuple[Pattern, ...]

    @property
    def pattern(self) -> Pattern:
        """The first pattern."""
        return self.patterns[0]

    @property
    def weight(self) -> Tensor:
        """The weight as it is, `[n, k]`."""
        return self.turned(self.linear.weight)

    def turned(self, tensor: Tensor) -> Tensor:
        """What is `[n, k]` as the module has it, and what is as the module has it `[n, k]`."""
        return tensor.t() if _is_conv1d(self.linear) else tensor

    @property
    def is_dense(self) -> bool:
        """Whether it may stay as it is, and nothing else."""
        return all(p.is_dense for p in self.patterns)

    def parameter(self, name: str) -> str:
        """The name in the model of one of its parameters."""
        return f"{self.name}.{name}".removeprefix(".")


def find_targets(model: nn.Module, asked: object, *, choices: bool = False) -> list[Target]:
    """Linears and their patterns, in the order of the model; each weight once.

    Args:
        model: the model.
        asked: a pattern for every linear but those that are tied to an embedding and the output
            head of a Transformers model, or a mapping from name patterns to patterns, None for what
            is to be left alone; the first that matches counts.
        choices: whether lists of patterns stand for patterns.

    Raises:
        OptionError: neither, no such pattern, one that matches nothing, or that does not divide a
            weight.
        ModelError: a weight that is asked for has no values or cannot be written.
    """
    linears = {
        name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) or _is_conv1d(m)
    }
    if _is_pattern(asked, choices):
        asked = {**dict.fromkeys(_heads(model, linears)), "*": asked}
    given: Any = asked
    if not isinstance(given, Mapping) or not all(
        isinstance(key, str) and (value is None or _is_pattern(value, choices))
        for key, value in given.items()
    ):
        what = "lists such as ['dense', '2:4']" if choices else "a string such as '2:4'"
        raise OptionError(
            "pattern",
            f"the pattern must be {what}, or a mapping from patterns of weight names to such or "
            f"None, not {asked!r}" + (": lists go with a budget" if not choices else ""),
        )
    check_patterns({"pattern": given}, [f"{name}.weight" for name in linears], "nn.Linear")
    texts: dict[str, Sequence[str]] = {
        key: [value] if isinstance(value, str) else value or [DENSE] for key, value in given.items()
    }
    patterns = {key: tuple(map(Pattern.parse, listed)) for key, listed in texts.items()}
    found: dict[int, Target] = {}
    for name, linear in linears.items():
        try:
            target = Target(name, linear, recipe_for("pattern", patterns, (f"{name}.weight",)))
        except Reject:
            continue
        if not target.is_dense:
            _check(target)
            found.setdefault(id(linear.weight), target)
    return list(found.values())


def _is_pattern(given: object, choices: bool) -> bool:
    if not choices:
        return isinstance(given, str)
    if isinstance(given, str) or not isinstance(given, Sequence):
        return False
    return bool(given) and all(isinstance(text, str) for text in given)


def _is_conv1d(module: nn.Module) -> bool:
    """Without an import of Transformers, which may not be installed."""
    kind = type(module)
    return (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D")


def _heads(model: nn.Module, linears: Mapping[str, nn.Module]) -> list[str]:
    """Names of the output head and of what shares its weight with an embedding."""
    get_head = getattr(model, "get_output_embeddings", lambda: None)
    head = get_head()
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return [
        name for name, m in linears.items() if m is head or id(m._parameters.get("weight")) in tied
    ]


def _check(target: Target) -> None:
    name, weight = target.name, target.linear._parameters.get("weight")
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
    weight = target.weight
    if not bool(torch.isfinite(weight).all()):
        row, column = (~torch.isfinite(weight)).nonzero()[0].tolist()
        raise ModelError(
            f"the weight of {name!r} holds {float(weight[row, column])} in row {row}, column "
            f"{column}: sparsify takes finite weights"
        )
    for pattern in target.patterns:
        pattern.check(name, (weight.shape[0], weight.shape[1]))
