"""`quantize`: weights, and activations, to few bits; on request only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile import (
    LINEAR,
    QUANTIZED_WEIGHT,
    Call,
    Edit,
    Match,
    Phase,
    Reject,
    Rule,
    quantize_activation,
    quantize_weight,
    remember_codec,
)
from sparsecompile.codecs.recipe import Recipe, parse_recipe
from sparsecompile.options.recipes import recipe_for, recipes_of


@dataclass(frozen=True)
class Quantize(Rule[Recipe]):
    """`linear(x, w) -> linear(quantize_activation(x), quantize_weight(w, codec))`.

    Without `quantize_activation` where only the weight is to be quantised. Lossy: only when
    `options["quantize"]` asks for it. The model's own weights stay as they are. `fold_quantized`
    makes packed linears of what this leaves; passes that make quantisation more exact come between.

    Attributes:
        recipe: a recipe for every linear, or patterns of weight names to recipes.
    """

    recipe: str | Mapping[str, str] | None = None

    name: ClassVar[str] = "quantize"
    phase: ClassVar[Phase] = Phase.QUANTIZE
    after: ClassVar[tuple[str, ...]] = ("prune",)

    def __post_init__(self) -> None:
        """Check every recipe before anything is compiled.

        Raises:
            OptionError: a recipe that cannot be used.
        """
        for recipe in self._recipes().values():
            parse_recipe(recipe)

    def _recipes(self) -> Mapping[str, str]:
        return recipes_of("quantize", self.recipe)

    def patterns(self) -> Sequence[Call]:
        """Any linear, once something is to be quantised."""
        return (Call(LINEAR, ("x", "weight", "bias")),) if self._recipes() else ()

    def guard(self, match: Match, edit: Edit) -> Recipe:
        """The recipe for this weight."""
        edit.binding(match["weight"])
        if QUANTIZED_WEIGHT.match(match["weight"]) is not None:
            raise Reject("quantized already")
        names = edit.weights.aliases(match["weight"])
        recipe = parse_recipe(recipe_for("quantize", self._recipes(), names))
        if recipe.activations != "float" and edit.weights.grad:
            raise Reject(
                "gradients are enabled, and rounded activations have none: call the model "
                "under torch.no_grad(), or quantize the weights only"
            )
        return recipe

    def replace(self, match: Match, facts: Recipe, edit: Edit) -> None:
        """Put the quantised weight, and activation, in place of the plain ones."""
        node, x, weight = match.node, match["x"], match["weight"]
        if facts.activations != "float":
            value = edit.value(x)
            x = edit.call(quantize_activation, (x,), before=node, value=value)
        args = (weight, remember_codec(facts.codec))
        value = edit.value(weight)
        quantized = edit.call(quantize_weight, args, before=node, like=weight, value=value)
        # In place, so that reports call it as the model's graph does.
        node.args, node.kwargs = (x, quantized, match["bias"]), {}


COMPONENTS = (Quantize(),)
