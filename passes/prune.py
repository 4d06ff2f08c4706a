"""`prune`: magnitude pruning of the compiled copy, on request only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile import (
    LINEAR,
    Call,
    Edit,
    Match,
    Phase,
    Reject,
    Rule,
    weight_function,
)
from sparsecompile.options.recipes import recipe_for, recipes_of
from sparsecompile.structures.recipe import parse_recipe


@weight_function(lossy="prune")
def prune_weight(weight: Tensor, recipe: str) -> Tensor:
    """The weight `[n, k]` with its smallest magnitudes cut to the recipe's structure."""
    structure, share = parse_recipe(recipe)
    return torch.where(structure.prune(weight, share), weight, torch.zeros_like(weight))


@dataclass(frozen=True)
class Prune(Rule[str]):
    """`linear(x, weight) -> linear(x, prune_weight(weight, recipe))`.

    Lossy: only when `options["prune"]` asks for it. The model's own weights stay as they are.

    Attributes:
        recipe: a recipe for every linear, or patterns of weight names to recipes.
    """

    recipe: str | Mapping[str, str] | None = None

    name: ClassVar[str] = "prune"
    phase: ClassVar[Phase] = Phase.QUANTIZE

    def __post_init__(self) -> None:
        """Check every recipe before anything is compiled.

        Raises:
            OptionError: a recipe that cannot be used.
        """
        for recipe in self._recipes().values():
            parse_recipe(recipe)

    def _recipes(self) -> Mapping[str, str]:
        return recipes_of("prune", self.recipe)

    def patterns(self) -> Sequence[Call]:
        """Any linear, once something is to be pruned."""
        return (Call(LINEAR, ("x", "weight", "bias")),) if self._recipes() else ()

    def guard(self, match: Match, edit: Edit) -> str:
        """The recipe for this weight."""
        edit.binding(match["weight"])
        if match["weight"].target is prune_weight:
            raise Reject("pruned already")
        stored = edit.weights.stored(match["weight"])
        if stored is not None:
            raise Reject(f"the model holds the weight packed as {stored}: prune it before")
        return recipe_for("prune", self._recipes(), edit.weights.aliases(match["weight"]))

    def replace(self, match: Match, facts: str, edit: Edit) -> None:
        """Put the pruned weight in place of the weight."""
        weight = match["weight"]
        pruned = edit.call(
            prune_weight, (weight, facts), before=match.node, like=weight, value=edit.value(weight)
        )
        args = (match["x"], pruned, match["bias"])
        edit.replace(match.node, edit.call(match.node.target, args, before=match.node))


COMPONENTS = (Prune(),)
