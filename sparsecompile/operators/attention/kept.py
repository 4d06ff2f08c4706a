"""Kept: what is known of an attention's mask, and how its kept tiles come about."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.masks.block_mask import HEADER_BYTES, BlockMask
from sparsecompile.masks.pattern import MaskPattern
from sparsecompile.masks.text import pattern_of, split
from sparsecompile.operators.attention.recognise.ends import Ends
from sparsecompile.operators.attention.recognise.recognise import recognise
from sparsecompile.operators.attention.recognise.recognised import Recognised
from sparsecompile.operators.attention.tiles import causal_tiles, interval_tiles, scanned_tiles
from sparsecompile.registry import default_registry

Tiles = tuple[Tensor | None, Tensor | None]
"""What the op takes: a `BlockMask`'s layout, None for all tiles, and what is added to scores."""
Nodes = tuple[Node | None, Node | None]
"""The same in a graph."""


class Kept(ABC):
    """Which keys queries attend to, as far as it is known when a graph is compiled."""

    has_mask: ClassVar[bool] = False
    """Whether the baseline reads a mask."""

    @property
    def causal(self) -> bool:
        """Whether query `i` attends to the keys up to `i`, and to all of them."""
        return self.by_position == "causal"

    @property
    def by_position(self) -> str:
        """The pattern where it says all, with the first query at the first key; else empty."""
        return ""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What timings depend on, such as `causal & window(256)`."""

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """What a problem keeps of it, by name."""
        return (("mask", self.kind),)

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """A mask like those that come, `[1, 1, queries, keys]`; `[0]` where there is none."""
        return torch.empty(0)

    def baseline(self, q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor | None, bool]:
        """The mask of an example and `is_causal`, as the baseline has them."""
        return (mask, False) if self.has_mask else (None, self.causal)

    def places(self, queries: int, keys: int) -> Tensor:
        """What counts in an example: `[1, 1, queries, keys]` bool."""
        mask = self.example(queries, keys, torch.float32)
        if not mask.numel():
            every = torch.ones(1, 1, queries, keys, dtype=torch.bool)
            return every.tril() if self.causal else every
        return mask if mask.dtype == torch.bool else mask == 0

    def made(self, q: Tensor, k: Tensor, mask: Tensor) -> Tiles:
        """What the op takes for an example, its q and k as the op has them."""
        return None, None

    def ends(self, match: Match, edit: Edit) -> Ends[Node] | None:
        """Nodes of where the keys of queries begin and end, if that is known of a mask."""
        return None

    @abstractmethod
    def emit(self, match: Match, edit: Edit) -> Nodes:
        """Nodes of what the op takes, before the match; attentions of one mask share them."""


class Everything(Kept):
    """There is no mask."""

    kind = "none"

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """None are needed."""
        return None, None


class Causal(Kept):
    """Query `i` attends to the keys up to `i`: what `is_causal` says."""

    kind = "is_causal"

    @property
    def by_position(self) -> str:
        """It says all."""
        return "causal"

    def made(self, q: Tensor, k: Tensor, mask: Tensor) -> Tiles:
        """Tiles up to the diagonal."""
        places = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool)
        return BlockMask.of(places.tril()).layout(), None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`causal_tiles(q, k)`."""
        return tiles(causal_tiles, (match["q"], match["k"]), (), match, edit), None


@dataclass(frozen=True)
class Scanned(Kept):
    """A mask of which nothing is known: a native function looks at it, once for all layers.

    Attributes:
        adds: whether it is added to the scores; else it is bool.
        why: why it has to be looked at.
        found: what it is where it adds nothing to the scores of keys that count.
        is_bias: whether it is likely to add something to them: it has heads of its own.
    """

    adds: bool
    why: str = ""
    found: Recognised | None = None
    is_bias: bool = False
    has_mask: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """`scanned`, `scanned, added`."""
        return "scanned" + ", added" * self.adds

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """Its kind, and whether it is a bias: tiles of one take longer."""
        return (*super().details, BIAS) if self.is_bias else super().details

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """All keys count: what is chosen then is no worse where fewer do."""
        shape = (1, 1, queries, keys)
        if self.is_bias:
            return (torch.arange(queries * keys) % 7 - 3.0).to(dtype).view(shape)
        return torch.zeros(shape, dtype=dtype) if self.adds else torch.ones(shape).bool()

    def places(self, queries: int, keys: int) -> Tensor:
        """All keys."""
        return torch.ones(1, 1, queries, keys, dtype=torch.bool)

    def made(self, q: Tensor, k: Tensor, mask: Tensor) -> Tiles:
        """Scanned, as it is in a graph."""
        return torch.ops.sparsecompile.scan_mask(mask), mask if self.adds else None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`scan_mask(mask)`, of four dimensions."""
        mask = match["mask"]
        dims = edit.value(mask).dim()
        if dims < 4:
            index = (*(None,) * (4 - dims), ...)
            mask = edit.once(operator.getitem, (mask, index), key=mask, before=match.node)
        kept = tiles(scanned_tiles, (mask, match["q"], match["k"]), mask, match, edit)
        return kept, mask if self.adds else None


@dataclass(frozen=True)
class Known(Kept):
    """A mask that follows a pattern, whose last query is at the last key.

    Attributes:
        pattern: its text.
        adds: whether it is added to the scores; else it is bool.
        found: the mask in a graph; None in measurements.
        first: whether the first query is at the first key; else the last is at the last.
    """

    pattern: str
    adds: bool
    found: Recognised | None = None
    first: bool = False
    has_mask: ClassVar[bool] = True

    @property
    def by_position(self) -> str:
        """The pattern, where no part of it depends on data."""
        return self.pattern if self.first and self._known == self.pattern else ""

    @property
    def _known(self) -> str:
        """The parts of it that are patterns of positions; others say what has no name, or data."""
        families = {pattern.family for pattern in default_registry().all(MaskPattern)}
        parts = (part.strip() for part in split(self.pattern, "&"))
        heads = ((part, *part.partition("(")[:2]) for part in parts)
        known = (p for p, family, sign in heads if p == "causal" or (sign and family in families))
        return " & ".join(known)

    @property
    def kind(self) -> str:
        """`causal & window(256)`, `causal, added`."""
        return self.pattern + ", added" * self.adds

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """Its kind, and where the first query is."""
        return (*super().details, FIRST) if self.first else super().details

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """The pattern's; of the parts that depend on data all keys count."""
        pattern = pattern_of(self._known or "full", default_registry())
        offset = 0 if self.first else max(0, keys - queries)
        mask = pattern.blocks(queries, keys, offset=offset).dense()
        least = torch.finfo(dtype).min
        return torch.where(mask, 0.0, least).to(dtype) if self.adds else mask

    def made(self, q: Tensor, k: Tensor, mask: Tensor) -> Tiles:
        """The pattern's tiles."""
        return BlockMask.of((mask == 0 if self.adds else mask).cpu()).layout(), None

    def ends(self, match: Match, edit: Edit) -> Ends[Node]:
        """Vectors of the graph."""
        found = self.found
        if found is None:
            raise ValueError(f"{self.pattern} is of no graph")
        ends: Ends[Node] = edit.remembered(("ends", match["mask"]), lambda: found.emit(edit))
        return ends

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`interval_tiles(low, high, keep, query_ids, key_ids, q, k)`."""
        args = (*vars(self.ends(match, edit)).values(), match["q"], match["k"])
        return tiles(interval_tiles, args, match["mask"], match, edit), None


BIAS = ("bias", "of heads")
"""Detail of masks that are likely to add something to the scores of keys that count."""
_FIXED: tuple[Kept, ...] = (Everything(), Causal(), Scanned(adds=False), Scanned(adds=True))
KINDS = {kept.kind: kept for kept in _FIXED}
"""Those without a pattern, by kind."""
FIRST = ("queries", "from 0")
"""Detail of masks whose first query is at the first key."""


def kept_named(details: Mapping[str, str]) -> Kept:
    """What is measured for a model's own mask with these details."""
    pattern, _, added = details["mask"].partition(", ")
    if BIAS in details.items():
        return Scanned(adds=True, is_bias=True)
    first = FIRST in details.items()
    return KINDS.get(details["mask"]) or Known(pattern, adds=bool(added), first=first)


def own_kept(match: Match, edit: Edit) -> Kept:
    """What is known of the mask that the model gives an `attention` node."""
    mask = match["mask"]
    if match["causal"]:
        return KINDS["is_causal"]
    if mask is None:
        return KINDS["none"]
    kept: Kept = edit.remembered(("kept", mask), lambda: _looked_at(mask, match.node, edit))
    return kept


def _looked_at(mask: Node, reader: Node, edit: Edit) -> Kept:
    """A mask that is recognised, or else has to be scanned; the report says why."""
    adds, found = edit.value(mask).dtype != torch.bool, None
    try:
        found = recognise(mask)
        if found.is_full:
            return KINDS["none"]
        if adds and found.may_be_empty:
            raise Reject("queries of which no key counts attend to all where masks are added")
    except Reject as reject:
        why = f"its mask is scanned in each call: {reject.reason}"
        edit.rejected("recognise_mask", reader, why)
        # Masks that only drop keys are the same for all heads.
        is_bias = adds and found is None and edit.value(mask).shape[-3:-2] not in ((), (1,))
        return Scanned(adds, reject.reason, found, is_bias)
    return known(found, adds)


def known(found: Recognised, adds: bool) -> Known:
    """A mask that is recognised."""
    text, _, moved = found.text.partition(",")
    return Known(text, adds, found, first=not moved)


def tiles(
    function: Callable[..., Tensor], args: tuple[Any, ...], of: Hashable, match: Match, edit: Edit
) -> Node:
    """A call that returns kept tiles, once for all attentions of these lengths."""
    q, k = edit.value(match["q"]), edit.value(match["k"])
    value = q.new_empty((HEADER_BYTES,), dtype=torch.uint8)
    # Sizes that are symbols have no hash.
    key = (of, str(q.shape[2]), str(k.shape[2]))
    return edit.once(function, args, key=key, before=match.node, value=value)
