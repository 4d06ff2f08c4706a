"""`pack_embedding`: an embedding whose table is packed in the model becomes a packed embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparsecompile import Call, Edit, Format, Match, Phase, Reject, Rule
from sparsecompile.formats.names import remember_format
from sparsecompile.operators.embedding.packed import EMBEDDING, packed_embedding
from sparsecompile.operators.embedding.spec import EmbeddingSpec


@dataclass(frozen=True)
class PackEmbedding(Rule[Format]):
    """`embedding(ids, weight) -> packed_embedding(ids, weight, format)`.

    Where the weight is a `PackedTensor`: no row of a dense table at hand takes less time unpacked.
    """

    name: ClassVar[str] = "pack_embedding"
    phase: ClassVar[Phase] = Phase.PACK

    def patterns(self) -> Sequence[Call]:
        """Any embedding."""
        return (EMBEDDING,)

    def guard(self, match: Match, edit: Edit) -> Format:
        """The format."""
        if edit.weights.stored(match["weight"]) is None:
            raise Reject("the table is dense in the model: its rows are read as they are")
        node, weight = match.node, match["weight"]
        return edit.survey(node, weight, spec=EmbeddingSpec, reader="embedding").format()

    def replace(self, match: Match, facts: Format, edit: Edit) -> None:
        """Insert the packed embedding."""
        node = match.node
        args = (match["ids"], match["weight"], remember_format(facts))
        new = edit.call(
            packed_embedding, args, before=node, value=edit.value(node), origins=(node.name,)
        )
        edit.replace(node, new)


COMPONENTS = (PackEmbedding(),)
