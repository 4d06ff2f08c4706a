"""`find_low_rank`: linears of weights near a low rank; on request only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from sparsecompile import LINEAR, PACK_CACHE, Call, Edit, Match, OptionError, Phase, Reject, Rule
from sparsecompile.formats.names import remember_decomposition
from sparsecompile.graph.considered import PartOf
from sparsecompile.graph.timed import timed
from sparsecompile.options.recipes import low_rank_recipes, recipe_for
from sparsecompile.structures.low_rank import (
    LowRank,
    largest_rank,
    rank_for,
    rank_of,
    relative_error,
)
from sparsecompile.weights.expression import evaluate
from sparsecompile.weights.parts import part

Recipe = float | Mapping[str, float]


def check_recipe(recipe: Recipe) -> None:
    """Return if a recipe can be used.

    Args:
        recipe: a rank, as a share of the smaller of n and k, or `{"energy": 0.99}`.

    Raises:
        OptionError: it is no share above 0, up to 1.
    """
    share = recipe["energy"] if isinstance(recipe, Mapping) else recipe
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise OptionError(
            "low_rank",
            f"cannot make {recipe!r} of a rank; write a share of it up to 1, such as 0.25, or "
            '{"energy": 0.99} for the share of the squared singular values to keep',
        )


@dataclass(frozen=True)
class FindLowRank(Rule[tuple[LowRank, PartOf]]):
    """`linear(x, w, bias) -> linear(linear(x, v), u, bias)`, with u v the nearest of a rank to w.

    Lossy: only when `options["low_rank"]` asks for it. The model's own weights stay as they are.
    What may be quantised then is u and v. What has a low rank anyway is found by
    `split_weights`.

    Attributes:
        recipe: for every linear, or patterns of weight names to recipes; see `Options`.
    """

    recipe: Recipe | Mapping[str, Recipe] | None = None

    name: ClassVar[str] = "find_low_rank"
    phase: ClassVar[Phase] = Phase.QUANTIZE
    before: ClassVar[tuple[str, ...]] = ("quantize",)
    after: ClassVar[tuple[str, ...]] = ("prune",)

    def __post_init__(self) -> None:
        """Check every recipe before anything is compiled.

        Raises:
            OptionError: a recipe that cannot be used.
        """
        for recipe in self._recipes().values():
            check_recipe(recipe)

    def _recipes(self) -> Mapping[str, Any]:
        return low_rank_recipes(self.recipe)

    def patterns(self) -> Sequence[Call]:
        """Any linear, once something is asked for."""
        return (Call(LINEAR, ("x", "weight", "bias")),) if self._recipes() else ()

    def guard(self, match: Match, edit: Edit) -> tuple[LowRank, PartOf]:
        """The rank for this weight, and what reports say of it."""
        weight = match["weight"]
        binding = edit.binding(weight)
        if weight.target is part:
            raise Reject("it is a factor of a low rank already")
        if (stored := edit.weights.stored(weight)) is not None:
            raise Reject(f"the model holds the weight packed as {stored}: it cannot be factored")
        recipe = recipe_for("low_rank", self._recipes(), edit.weights.aliases(weight))
        live = edit.weights.live(binding)
        with timed("detection"):
            purpose = ("low rank", repr(recipe))
            rank, error = PACK_CACHE.get(
                binding, live, purpose, lambda: _rank(evaluate(binding, live), recipe)
            ).value
        edit.check_dtypes(weight, x=match["x"], bias=match["bias"])
        found = LowRank(rank, lossy=True)
        return found, PartOf(str(found), 0, edit.value(weight).nbytes, f"low_rank {recipe}", error)

    def replace(self, match: Match, facts: tuple[LowRank, PartOf], edit: Edit) -> None:
        """Put two linears in the place of one."""
        node, weight, (found, which) = match.node, match["weight"], facts
        value = edit.value(weight)
        u, v = (
            edit.call(
                part,
                (weight, remember_decomposition(found), index),
                before=node,
                like=weight,
                value=value.new_empty(shape),
                part=replace(which, index=index),
            )
            for index, shape in enumerate(found.form((value.shape[0], value.shape[1])).leaves())
        )
        inner = edit.call(F.linear, (match["x"], v, None), before=node)
        edit.replace(node, edit.call(F.linear, (inner, u, match["bias"]), before=node))


def _rank(weight: Tensor, recipe: Recipe) -> tuple[int, float]:
    """The rank that a recipe means, and the relative error with it.

    Raises:
        Reject: factors of that rank are no smaller than the weight.
    """
    (n, k) = weight.shape
    if isinstance(recipe, Mapping):
        rank = rank_for(weight, recipe["energy"])
    else:
        rank = rank_of((n, k), recipe)
    if (most := largest_rank((n, k))) < rank:
        raise Reject(f"factors of {n} x {k} of rank {rank} are no smaller: up to {most} they are")
    return rank, relative_error(weight, LowRank(rank, lossy=True).parts(weight))


COMPONENTS = (FindLowRank(),)
