"""`quantize`: weights, and activations, to few bits; on request only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile import (
    LINEAR,
    QUANTIZED_WEIGHT,
    Call,
    Codec,
    Edit,
    Int4,
    Int8,
    Match,
    OptionError,
    Phase,
    Reject,
    Rule,
    quantize_activation,
    quantize_weight,
    remember_codec,
)
from sparsecompile.codecs.codebook import Codebook
from sparsecompile.codecs.fp8 import Fp8
from sparsecompile.codecs.integer import Int2, Int3, Ternary
from sparsecompile.codecs.nf4 import Nf4
from sparsecompile.codecs.parameters import Parametric
from sparsecompile.options.recipes import recipe_for, recipes_of

_RECIPES: Mapping[str, tuple[Parametric, str]] = {
    "int8-weight-only": (Int8(), "float"),
    "int8": (Int8(), "int8"),
    # The usual group of four-bit weights: GPTQ (arXiv 2210.17323), AWQ (arXiv 2306.00978).
    "int4": (Int4(128), "float"),
    "int3": (Int3(64, offsets="minima"), "float"),
    "int2": (Int2(32, offsets="minima"), "float"),
    "ternary": (Ternary(128), "float"),
    # As bitsandbytes has it.
    "nf4": (Nf4(64), "float"),
    "fp8": (Fp8(), "float"),
    "codebook": (Codebook(), "float"),
}


@dataclass(frozen=True)
class Recipe:
    """What becomes of a linear.

    Attributes:
        codec: how its weight is stored.
        activations: see `KernelSpec`.
    """

    codec: Codec
    activations: str


def parse_recipe(recipe: str) -> Recipe:
    """The codec and the rounding of activations that a recipe asks for.

    Args:
        recipe: `int8-weight-only`, `int8` (with activations in 8 bits), `int4`, `int3`, `int2`,
            `ternary`, `nf4`, `fp8` or `codebook`, with those parameters of the codec that are not
            the recipe's: `int4[group=32,scales=float16,zero_points]`.

    Raises:
        OptionError: none of these.
    """
    found = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", recipe.replace(" ", ""))
    if found is None or found[1] not in _RECIPES:
        *names, last = map(repr, _RECIPES)
        raise OptionError(
            "quantize",
            f"cannot quantize to {recipe!r}; write {', '.join(names)} or {last}, with a group as "
            "in 'int4[group=64]'",
        )
    codec, activations = _RECIPES[found[1]]
    if found[2] is None:
        return Recipe(codec, activations)
    try:
        parsed = codec.parse(found[2])
    except ValueError as error:
        raise OptionError("quantize", f"cannot quantize to {recipe!r}: {error}") from error
    if parsed.lossless:
        raise OptionError(
            "quantize",
            f"cannot quantize to {recipe!r}: what loses nothing is found without being asked for",
        )
    return Recipe(parsed.over(codec), activations)


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
