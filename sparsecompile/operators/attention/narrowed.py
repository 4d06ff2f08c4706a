"""Narrowed: the kept keys of an attention for which a pattern is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.masks.block_mask import FEW_QUERIES
from sparsecompile.masks.choice import Choice
from sparsecompile.masks.pattern import Either
from sparsecompile.masks.predicate import Predicate
from sparsecompile.operators.attention.asked import ends_of, named
from sparsecompile.operators.attention.asked_tiles import (
    asked_interval_tiles,
    asked_tiles,
    row_tiles,
)
from sparsecompile.operators.attention.kept import (
    Kept,
    Nodes,
    Scanned,
    Tiles,
    kept_named,
    known,
    own_kept,
    tiles,
)
from sparsecompile.operators.attention.keys import kept_keys


@dataclass(frozen=True)
class Narrowed(Kept):
    """What both the model's own mask and a pattern keep.

    Attributes:
        own: what is known of the own mask.
        pattern: name of what is asked for.
    """

    own: Kept
    pattern: str

    @property
    def kind(self) -> str:
        """`causal & (window(256) + global(16))`."""
        asked = named(self.pattern)
        if self.own.kind == "none":
            return str(asked)
        own = "causal" if self.own.causal else self.own.kind.removesuffix(", added")
        return f"{own} & ({asked})" if isinstance(asked, Either) else f"{own} & {asked}"

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """The own one's, and the text of the pattern."""
        return (*self.own.details, ("pattern", str(named(self.pattern))))

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """The own one's."""
        return self.own.example(queries, keys, dtype)

    def places(self, queries: int, keys: int) -> Tensor:
        """What both keep, of random queries and keys; predicates may know no such lengths."""
        if isinstance(named(self.pattern), Predicate):
            return self.own.places(queries, keys)
        generator = torch.Generator().manual_seed(0)
        q, k = (torch.randn(1, 1, n, 16, generator=generator) for n in (queries, keys))
        mask, causal = self.own.baseline(q, k, self.own.example(queries, keys, q.dtype))
        return kept_keys(q, k, mask, causal, self.pattern)

    def baseline(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor | None, bool]:
        """What both keep as a mask; predicates are left out."""
        own, causal = self.own.baseline(q, k, mask)
        if isinstance(named(self.pattern), Predicate):
            return own, causal
        return kept_keys(q, k, own, causal, self.pattern), False

    def made(self, q: Tensor, k: Tensor, mask: Tensor) -> Tiles:
        """As in a graph of many queries; predicates are left out."""
        blocks, _ = self.own.made(q, k, mask)
        if isinstance(named(self.pattern), Predicate):
            return blocks, None
        return asked_tiles(q, k, blocks, self.pattern), None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """For a few queries by the definition; else from ends, or from the own tiles."""
        asked, mask, causal = named(self.pattern), match["mask"], match["causal"]
        q, k = match["q"], match["k"]
        batch, heads, queries, _ = edit.value(q).shape
        # What attentions have to have in common to share tiles.
        reader = match.node if isinstance(asked, Choice) else None
        of = (mask, causal, self.pattern, str(batch), heads, reader)
        is_few = isinstance(queries, int) and queries <= FEW_QUERIES
        if is_few and isinstance(asked, Choice):
            return self.own.emit(match, edit)
        if is_few and not isinstance(asked, Predicate):
            args = (q, k, mask, causal, self.pattern)
            return tiles(row_tiles, args, of, match, edit), None
        if _is_intervals(self.pattern) and not isinstance(self.own, Scanned):
            ends = self.own.ends(match, edit)
            given = tuple(vars(ends).values()) if ends is not None else (None,) * 5
            args = (q, k, *given, causal, self.pattern)
            return tiles(asked_interval_tiles, args, of, match, edit), None
        own, _ = self.own.emit(match, edit)
        return tiles(asked_tiles, (q, k, own, self.pattern), of, match, edit), None


def kept_of(match: Match, edit: Edit) -> Kept:
    """What is known of the keys that an `attention` node keeps."""
    own, pattern = own_kept(match, edit), match["pattern"]
    return Narrowed(narrowable(own), pattern) if pattern else own


def kept_detailed(details: Mapping[str, str]) -> Kept:
    """What is measured for a problem with these details."""
    own = kept_named(details)
    return Narrowed(own, details["pattern"]) if "pattern" in details else own


def narrowable(own: Kept) -> Kept:
    """The own mask as one that only says which keys count.

    Raises:
        Reject: it may say more.
    """
    if not isinstance(own, Scanned) or not own.adds:
        return own
    if own.found is None:
        raise Reject(
            f"its mask is added to the scores, and may add more than what drops keys: {own.why}; a "
            "pattern goes with masks that only drop keys"
        )
    return known(own.found, own.adds)


def _is_intervals(pattern: str) -> bool:
    return ends_of(named(pattern), torch.zeros(1, dtype=torch.int64)) is not None
