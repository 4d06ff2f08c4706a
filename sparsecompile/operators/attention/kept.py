"""Kept: what is known of an attention's mask, and how its kept tiles come about."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.masks.block_mask import HEADER_BYTES, BlockMask

Tiles = tuple[Tensor | None, Tensor | None]
"""What the op takes: a `BlockMask`'s layout, None for all tiles, and what is added to scores."""


class Kept(ABC):
    """Which keys queries attend to, as far as it is known when a graph is compiled."""

    kind: str
    """What timings depend on."""
    has_mask: ClassVar[bool] = False
    """Whether the baseline reads a mask."""
    causal: ClassVar[bool] = False
    """Whether the baseline is told `is_causal`."""

    def share(self, queries: int, keys: int) -> float:
        """The share of places that count, as far as it is known."""
        return 1.0

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """A mask like those that come, `[1, 1, queries, keys]`; `[0]` where there is none."""
        return torch.empty(0)

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """What the op takes for an example."""
        return None, None

    @abstractmethod
    def emit(self, match: Match, edit: Edit) -> tuple[Node | None, Node | None]:
        """Nodes of what the op takes, before the match; attentions of one mask share them."""


class Everything(Kept):
    """There is no mask."""

    kind = "none"

    def emit(self, match: Match, edit: Edit) -> tuple[None, None]:
        """None are needed."""
        return None, None


class Causal(Kept):
    """Query `i` attends to the keys up to `i`: what `is_causal` says."""

    kind = "causal"
    causal = True

    def share(self, queries: int, keys: int) -> float:
        """About a half where they are as many."""
        first = min(queries, keys)
        return (first * (first + 1) / 2 + (queries - first) * keys) / max(1, queries * keys)

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """Tiles up to the diagonal."""
        return BlockMask.of(torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()).layout(), None

    def emit(self, match: Match, edit: Edit) -> tuple[Node, None]:
        """`causal_tiles(q, k)`."""
        q, k = match["q"], match["k"]
        return _tiles(causal_tiles, (q, k), (), match, edit), None


@dataclass(frozen=True)
class Scanned(Kept):
    """A mask of which nothing is known: a native function looks at it, once for all layers.

    Attributes:
        adds: whether it is added to the scores; else it is bool.
    """

    adds: bool
    has_mask: ClassVar[bool] = True

    @property
    def kind(self) -> str:  # type: ignore[override]
        """`scanned`, `scanned, added`."""
        return "scanned" + ", added" * self.adds

    def example(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """All keys count: what is chosen then is no worse where fewer do."""
        shape = (1, 1, queries, keys)
        return torch.zeros(shape, dtype=dtype) if self.adds else torch.ones(shape).bool()

    def made(self, mask: Tensor, queries: int, keys: int) -> Tiles:
        """Scanned, as it is in a graph."""
        return torch.ops.sparsecompile.scan_mask(mask), mask if self.adds else None

    def emit(self, match: Match, edit: Edit) -> tuple[Node, Node | None]:
        """`scan_mask(mask)`, of four dimensions."""
        mask = match["mask"]
        dims = edit.value(mask).dim()
        if dims < 4:
            index = (*(None,) * (4 - dims), ...)
            mask = edit.once(operator.getitem, (mask, index), key=mask, before=match.node)
        tiles = _tiles(scanned_tiles, (mask, match["q"], match["k"]), mask, match, edit)
        return tiles, mask if self.adds else None


_ALL: tuple[Kept, ...] = (Everything(), Causal(), Scanned(adds=False), Scanned(adds=True))
KINDS = {kept.kind: kept for kept in _ALL}
"""By kind."""


def kept_of(match: Match, edit: Edit) -> Kept:
    """What is known of the mask of an `attention` node."""
    if match["causal"]:
        return KINDS["causal"]
    if match["mask"] is None:
        return KINDS["none"]
    return Scanned(edit.value(match["mask"]).dtype != torch.bool)


def _tiles(
    function: Callable[..., Tensor], args: tuple[Node, ...], of: Hashable, match: Match, edit: Edit
) -> Node:
    """A call that returns kept tiles, once for all attentions of these lengths."""
    q, k = edit.value(match["q"]), edit.value(match["k"])
    value = q.new_empty((HEADER_BYTES,), dtype=torch.uint8)
    key = (of, q.shape[2], k.shape[2])
    return edit.once(function, args, key=key, before=match.node, value=value)


def causal_tiles(q: Tensor, k: Tensor) -> Tensor:
    """The kept tiles where query `i` attends to the keys up to `i`.

    Args:
        q: `[batch, heads, queries, d]`, of which the size counts.
        k: `[batch, kv heads, keys, d]`, of which the size counts.
    """
    queries, keys = q.shape[2], k.shape[2]
    high = torch.arange(1, queries + 1, dtype=torch.int32, device=q.device).clamp(max=keys)
    high = high.view(1, 1, queries)
    low = torch.zeros_like(high)
    op = torch.ops.sparsecompile.interval_mask
    return op(low, high, None, None, None, keys)  # type: ignore[no-any-return]


def scanned_tiles(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The kept tiles of a mask `[batch or 1, heads or 1, queries or 1, keys or 1]`."""
    whole = mask.expand(mask.shape[0], mask.shape[1], q.shape[2], k.shape[2])
    return torch.ops.sparsecompile.scan_mask(whole)  # type: ignore[no-any-return]
