"""`sparsify_attention`: fewer keys for attentions, on request only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sparsecompile import Call, Edit, Match, OptionError, Phase, Reject, Rule
from sparsecompile.graph.edit import origins
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.predicate import Function
from sparsecompile.operators.attention.asked import Asked, asked_for, for_sizes, remember
from sparsecompile.operators.attention.kept import own_kept
from sparsecompile.operators.attention.narrowed import narrowable
from sparsecompile.operators.attention.node import ATTENTION
from sparsecompile.options.recipes import recipe_for, recipes_of

OPTION = "attention"


@dataclass(frozen=True)
class SparsifyAttention(Rule[Asked]):
    """`attention(..., pattern="") -> attention(..., pattern=recipe)`.

    Lossy: only when `options["attention"]` asks for it. What a pattern keeps is dropped where the
    model's own mask drops it.

    Attributes:
        recipe: of every attention, or by patterns of module names: the text of a pattern of masks,
            of a choice, or a predicate `mask_mod(b, h, q, kv)`.
    """

    recipe: str | Function | Mapping[str, str | Function] | None = None

    name: ClassVar[str] = "sparsify_attention"
    phase: ClassVar[Phase] = Phase.QUANTIZE

    def __post_init__(self) -> None:
        """Check every recipe before anything is compiled.

        Raises:
            OptionError: a recipe that cannot be used.
        """
        for recipe in self._recipes().values():
            asked_for(recipe)

    def _recipes(self) -> Mapping[str, Any]:
        return recipes_of(OPTION, self.recipe, functions=True)

    def patterns(self) -> Sequence[Call]:
        """Any attention, once some is to be sparse."""
        return (ATTENTION,) if self._recipes() else ()

    def guard(self, match: Match, edit: Edit) -> Asked:
        """What is asked for this one.

        Raises:
            OptionError: it fits no attention of these sizes.
        """
        (name,) = origins(match.node)
        considered = edit.considered[name]
        asked = asked_for(recipe_for(OPTION, self._recipes(), (considered.weight,)))
        batch, heads, *_ = edit.value(match["q"]).shape
        if not isinstance(asked, Choice):
            fitted = for_sizes(asked, batch if isinstance(batch, int) else 1, heads)
            if fitted.heads not in (1, heads):
                raise OptionError(
                    OPTION,
                    f"{asked} is of {fitted.heads} heads, {considered.weight} has {heads}; give "
                    "each head a part, or all of them one pattern",
                )
        try:
            if edit.device.target.device != "cpu":
                raise Reject("masks on request are made on CPUs alone")
            narrowable(own_kept(match, edit))
        except Reject as reject:
            considered.reason = f"without {asked}, which is asked for: {reject.reason}"
            raise
        considered.lossy = f"attention {asked}"
        return asked

    def replace(self, match: Match, facts: Asked, edit: Edit) -> None:
        """Name the pattern in the node."""
        match.node.args = (*match.node.args[:8], remember(facts))


COMPONENTS = (SparsifyAttention(),)
