"""`pack_linear`: a linear whose weight holds zeros becomes a packed linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile import (
    LINEAR,
    Call,
    Dense,
    Edit,
    Float,
    Format,
    KernelSpec,
    Match,
    Phase,
    Rule,
    insert_packed_linear,
)
from sparsecompile.weights.channels import take_channels
from sparsecompile.weights.parts import part, product


@dataclass(frozen=True)
class PackLinear(Rule[Format]):
    """`linear(x, weight, bias) -> packed_linear(x, weight, bias, format)`.

    For the format that finds itself in the weight and takes the fewest bytes, when these are
    fewer than the dense weight's. What passes made of weights of the model is packed anyway: it
    has to be kept.
    """

    name: ClassVar[str] = "pack_linear"
    phase: ClassVar[Phase] = Phase.PACK

    def patterns(self) -> Sequence[Call]:
        """Any linear."""
        return (Call(LINEAR, ("x", "weight", "bias")),)

    def guard(self, match: Match, edit: Edit) -> Format:
        """The format."""
        weight = match["weight"]
        survey = edit.survey(match.node, weight)
        if survey.best is None and weight.target in (part, product, take_channels):
            found = Format(Dense(), Float())
            edit.device.check(KernelSpec(found, edit.value(weight).dtype))
        else:
            found = survey.format()
        edit.check_dtypes(weight, x=match["x"], bias=match["bias"])
        return found

    def replace(self, match: Match, facts: Format, edit: Edit) -> None:
        """Insert the packed linear."""
        node = match.node
        args = (match["x"], match["weight"], match["bias"], facts)
        new = insert_packed_linear(edit, *args, before=node, origins=(node.name,))
        edit.replace(node, new)


COMPONENTS = (PackLinear(),)
