"""`pack_linear`: a linear whose weight holds zeros becomes a packed linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile import LINEAR, Call, Edit, Format, Match, Phase, Rule, insert_packed_linear


@dataclass(frozen=True)
class PackLinear(Rule[Format]):
    """`linear(x, weight, bias) -> packed_linear(x, weight, bias, format)`.

    For the format that finds itself in the weight and takes the fewest bytes, when these are
    fewer than the dense weight's.
    """

    name: ClassVar[str] = "pack_linear"
    phase: ClassVar[Phase] = Phase.PACK

    def patterns(self) -> Sequence[Call]:
        """Any linear."""
        return (Call(LINEAR, ("x", "weight", "bias")),)

    def guard(self, match: Match, edit: Edit) -> Format:
        """The format."""
        found = edit.survey(match.node, match["weight"]).format()
        edit.check_dtypes(match["weight"], x=match["x"], bias=match["bias"])
        return found

    def replace(self, match: Match, facts: Format, edit: Edit) -> None:
        """Insert the packed linear."""
        node = match.node
        args = (match["x"], match["weight"], match["bias"], facts)
        new = insert_packed_linear(edit, *args, before=node, origins=(node.name,))
        edit.replace(node, new)


COMPONENTS = (PackLinear(),)
