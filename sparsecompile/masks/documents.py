"""`documents(ids)`: queries attend to keys of their own document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecompile.errors import OptionError
from sparsecompile.masks.grid import FULL, NONE, PARTIAL, Grid
from sparsecompile.masks.pattern import OPTION, MaskPattern
from sparsecompile.masks.runs import runs_of, runs_text


@dataclass(frozen=True, eq=False)
class Documents(MaskPattern):
    """`queries[b, q] == ids[b, kv]`: of which document each position is.

    Attributes:
        ids: `[batch or 1, positions]` integers.
        queries: of positions of queries, where they are not the same: `[batch or 1, positions]`.
    """

    ids: Tensor
    queries: Tensor | None = None

    family = "documents"

    @property
    def name(self) -> str:
        """`documents(0*5,1*7)`: runs of ids, entries of the batch between semicolons."""
        tables = [self.ids] if self.queries is None else [self.ids, self.queries]
        return f"documents({' / '.join(map(runs_text, tables))})"

    @classmethod
    def parse(cls, parameters: str, read: Callable[[str], MaskPattern]) -> Documents:
        """From runs.

        Raises:
            ValueError: it is none.
        """
        return cls(*map(runs_of, parameters.split("/")))

    @property
    def batch(self) -> int:
        """Of the ids."""
        return max(self.ids.shape[0], self._queries.shape[0])

    @property
    def _queries(self) -> Tensor:
        return self.ids if self.queries is None else self.queries

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of one document."""
        own = self._queries[b.clamp(max=self._queries.shape[0] - 1), q]
        return own == self.ids[b.clamp(max=self.ids.shape[0] - 1), kv]

    def tiles(self, grid: Grid) -> Tensor:
        """By the least and the largest id on either side."""
        q, kv = self._queries[:, grid.queries], self.ids[:, grid.keys]
        q_least, q_most = q.amin(2)[:, :, None], q.amax(2)[:, :, None]
        least, most = kv.amin(2)[:, None], kv.amax(2)[:, None]
        none = (q_most < least) | (most < q_least)
        one = (q_least == q_most) & (least == most)
        known = torch.where(none, NONE, torch.where(one, FULL, PARTIAL))
        return known.to(torch.int8)[:, None]

    def check(self, grid: Grid) -> None:
        """Return if every position has an id.

        Raises:
            OptionError: some have none.
        """
        for table, end, what in (
            (self._queries, grid.offset + grid.q, "queries"),
            (self.ids, grid.kv_offset + grid.kv, "keys"),
        ):
            if table.shape[1] < end:
                raise OptionError(
                    OPTION,
                    f"documents: {table.shape[1]} ids of {what}, which have positions up to "
                    f"{end - 1}; give each position an id",
                )


COMPONENTS = (Documents(torch.tensor([[0]])),)
