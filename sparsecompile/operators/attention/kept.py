"""Kept: what is known of an attention's mask, and how its kept tiles come about."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.masks.block_mask import HEADER_BYTES, BlockMask
from sparsecompile.masks.text import pattern_of
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
    causal: ClassVar[bool] = False
    """Whether the baseline is told `is_causal`."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What timings depend on, such as `causal & window(256)`."""

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """A mask like those that come, `[1, 1, queries, keys]`; `[0]` where there is none."""
        return torch.empty(0)

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """What the op takes for an example."""
        return None, None

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
    causal = True

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """Tiles up to the diagonal."""
        return BlockMask.of(torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()).layout(), None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`causal_tiles(q, k)`."""
        return _tiles(causal_tiles, (match["q"], match["k"]), (), match, edit), None


@dataclass(frozen=True)
class Scanned(Kept):
    """A mask of which nothing is known: a native function looks at it, once for all layers.

    Attributes:
        adds: whether it is added to the scores; else it is bool.
    """

    adds: bool
    has_mask: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """`scanned`, `scanned, added`."""
        return "scanned" + ", added" * self.adds

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """All keys count: what is chosen then is no worse where fewer do."""
        shape = (1, 1, queries, keys)
        return torch.zeros(shape, dtype=dtype) if self.adds else torch.ones(shape).bool()

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """Scanned, as it is in a graph."""
        return torch.ops.sparsecompile.scan_mask(mask), mask if self.adds else None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`scan_mask(mask)`, of four dimensions."""
        mask = match["mask"]
        dims = edit.value(mask).dim()
        if dims < 4:
            index = (*(None,) * (4 - dims), ...)
            mask = edit.once(operator.getitem, (mask, index), key=mask, before=match.node)
        tiles = _tiles(scanned_tiles, (mask, match["q"], match["k"]), mask, match, edit)
        return tiles, mask if self.adds else None


@dataclass(frozen=True)
class Known(Kept):
    """A mask that follows a pattern, whose last query is at the last key.

    Attributes:
        pattern: its text.
        adds: whether it is added to the scores; else it is bool.
        found: the mask in a graph; None in measurements.
    """

    pattern: str
    adds: bool
    found: Recognised | None = None
    has_mask: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """`causal & window(256)`, `causal, added`."""
        return self.pattern + ", added" * self.adds

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """The pattern's; of the parts that depend on data all keys count."""
        parts = [part for part in self.pattern.split(" & ") if "(" in part or part == "causal"]
        pattern = pattern_of(" & ".join(parts) or "full", default_registry())
        mask = pattern.blocks(queries, keys, offset=max(0, keys - queries)).dense()
        least = torch.finfo(dtype).min
        return torch.where(mask, 0.0, least).to(dtype) if self.adds else mask

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """The pattern's tiles."""
        return BlockMask.of((mask == 0 if self.adds else mask).cpu()).layout(), None

    def emit(self, match: Match, edit: Edit) -> Nodes:
        """`interval_tiles(low, high, keep, query_ids, key_ids, q, k)`, of vectors of the graph."""
        mask, found = match["mask"], self.found
        if found is None:
            raise ValueError(f"{self.pattern} is of no graph")
        ends: Ends[Node] = edit.remembered(("ends", mask), lambda: found.emit(edit))
        sizes = (match["q"], match["k"])
        args = (ends.low, ends.high, ends.keep, ends.query_ids, ends.key_ids, *sizes)
        return _tiles(interval_tiles, args, mask, match, edit), None


_FIXED: tuple[Kept, ...] = (Everything(), Causal(), Scanned(adds=False), Scanned(adds=True))
KINDS = {kept.kind: kept for kept in _FIXED}
"""Those without a pattern, by kind."""


def kept_named(kind: str) -> Kept:
    """What is measured for a kind."""
    pattern, _, added = kind.partition(", ")
    return KINDS.get(kind) or Known(pattern, adds=bool(added))


def kept_of(match: Match, edit: Edit) -> Kept:
    """What is known of the mask of an `attention` node."""
    mask = match["mask"]
    if match["causal"]:
        return KINDS["is_causal"]
    if mask is None:
        return KINDS["none"]
    kept: Kept = edit.remembered(("kept", mask), lambda: _looked_at(mask, match.node, edit))
    return kept


def _looked_at(mask: Node, reader: Node, edit: Edit) -> Kept:
    """A mask that is recognised, or else has to be scanned; the report says why."""
    adds = edit.value(mask).dtype != torch.bool
    try:
        found = recognise(mask)
        if found.is_full:
            return KINDS["none"]
        if adds and found.may_be_empty:
            raise Reject("queries of which no key counts attend to all where masks are added")
    except Reject as reject:
        edit.rejected(
            "recognise_mask", reader, f"its mask is scanned in each call: {reject.reason}"
        )
        return Scanned(adds)
    return Known(found.text.partition(",")[0], adds, found)


def _tiles(
    function: Callable[..., Tensor], args: tuple[Any, ...], of: Hashable, match: Match, edit: Edit
) -> Node:
    """A call that returns kept tiles, once for all attentions of these lengths."""
    q, k = edit.value(match["q"]), edit.value(match["k"])
    value = q.new_empty((HEADER_BYTES,), dtype=torch.uint8)
    # Sizes that are symbols have no hash.
    key = (of, str(q.shape[2]), str(k.shape[2]))
    return edit.once(function, args, key=key, before=match.node, value=value)
