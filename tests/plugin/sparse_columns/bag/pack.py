"""`pack_bag`: puts the operator's nodes into graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from sparse_columns.bag.operator import BagSpec, packed_bag
from sparsecompile import Call, Edit, Format, Match, Phase, Reject, Rule
from sparsecompile.formats.names import remember_format
from sparsecompile.operators.embedding.packed import EMBEDDING


@dataclass(frozen=True)
class PackBag(Rule[Format]):
    """`sum(embedding(ids, weight), -2) -> packed_bag(ids, weight, format)`."""

    name: ClassVar[str] = "pack_bag"
    phase: ClassVar[Phase] = Phase.PACK

    def patterns(self) -> Sequence[Call]:
        """Sums of rows."""
        return (Call((torch.sum, "sum"), ("x", "dim", "keepdim"), {"x": EMBEDDING}),)

    def guard(self, match: Match, edit: Edit) -> Format:
        """The format."""
        if match["dim"] not in (-2, (-2,)) or match["keepdim"]:
            raise Reject("not a sum over the rows of a bag")
        return edit.survey(match.node, match["weight"], spec=BagSpec, reader="bag").format()

    def replace(self, match: Match, facts: Format, edit: Edit) -> None:
        """Insert the node."""
        node = match.node
        args = (match["ids"], match["weight"], remember_format(facts))
        value = edit.value(node)
        edit.replace(
            node, edit.call(packed_bag, args, before=node, value=value, origins=(node.name,))
        )


COMPONENTS = (PackBag(),)
