"""`clusters(n)`: the keys that are near to the same of n centroids as the query is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.masks.choice import Choice
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.pattern import MaskPattern

ROUNDS = 3
"""Of moving centroids."""


@dataclass(frozen=True)
class Clusters(Choice):
    """Directions of queries and keys by the nearest centroid; a query's own position counts, too.

    Centroids begin at keys that lie equally far apart, and move to the means of their keys. Of the
    Routing Transformer (Roy et al., arXiv 2003.05997), which learns them.
    """

    count: int

    family = "clusters"

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            ValueError: it is below 1.
        """
        if self.count < 1:
            raise ValueError(f"{self.count} clusters are too few; it needs 1 or more")

    def choose(self, q: Tensor, k: Tensor, own: Tensor, first: Tensor) -> Tensor:
        """By comparing every query with every key."""
        queries, keys = self._clusters(q, k, first)
        position = first + torch.arange(q.shape[2])
        is_own = position[:, None] == torch.arange(k.shape[2])
        return (queries[..., None] == keys[:, :, None]) | is_own

    def pattern(self, q: Tensor, k: Tensor, own: MaskPattern, grid: Grid) -> MaskPattern:
        """The clusters."""
        return Alike(*self._clusters(q, k, torch.tensor(grid.offset)), grid.offset)

    def _clusters(self, q: Tensor, k: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Of queries `[batch, heads, queries]` and of keys `[batch, heads, keys]`."""
        keys = F.normalize(k.float(), dim=-1)
        length = (first + q.shape[2]).clamp(max=k.shape[2])
        there = (torch.arange(k.shape[2]) < length).float()[:, None]
        centroids = keys[:, :, torch.arange(self.count) * length // self.count]
        for _ in range(ROUNDS):
            members = F.one_hot((keys @ centroids.mT).argmax(-1), self.count) * there
            centroids = F.normalize(members.mT @ keys, dim=-1)
        groups = q.shape[1] // k.shape[1]
        of_keys = (keys @ centroids.mT).argmax(-1)
        of_queries = (
            F.normalize(q.float(), dim=-1) @ centroids.repeat_interleave(groups, 1).mT
        ).argmax(-1)
        return of_queries, of_keys.repeat_interleave(groups, 1)


@dataclass(frozen=True, eq=False)
class Alike(MaskPattern):
    """`of_queries[b, h, q - first] == of_keys[b, h, kv]`, or the own position; it has no text."""

    of_queries: Tensor
    of_keys: Tensor
    first: int

    family = "alike"

    @property
    def batch(self) -> int:
        """Of the clusters."""
        return self.of_keys.shape[0]

    @property
    def heads(self) -> int:
        """Of the clusters."""
        return self.of_keys.shape[1]

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """By the clusters."""
        return (self.of_queries[b, h, q - self.first] == self.of_keys[b, h, kv]) | (q == kv)


COMPONENTS = (Clusters(16),)
