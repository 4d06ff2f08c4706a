"""Groups: the values of a weight, a row for those that share a scale."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.coordinates import Places


class Groups:
    """The values of a weight, a row for those that share a scale.

    Args:
        values: `[slots]`.
        places: row and column of every slot.
        group: columns of a group, None for whole rows.

    Attributes:
        values: `[groups, columns]`; zero where there is no slot.
    """

    def __init__(self, values: Tensor, places: Places, group: int | None) -> None:
        (n, k), self._count = places.shape, places.count(group)
        size = max(1, group or k)
        self._slots: Tensor | None = None
        if places.structure.family == "dense" and k % size == 0:
            self.values = values.view(-1, size)
            return
        rows, columns = places.rows, places.columns
        inside = (rows < n) & (columns < k)
        self._slots = torch.where(inside, rows * (self._count * size) + columns, -1)
        self.values = values.new_zeros(n * self._count, size)
        self.values.view(-1)[self._slots[inside]] = values[inside]
        self._there = torch.zeros(self.values.shape, dtype=torch.bool)
        self._there.view(-1)[self._slots[inside]] = True

    def there_in(self, groups: Tensor) -> Tensor | None:
        """Where slots are in some groups: `[g, columns]` bool, None where they are everywhere."""
        return None if self._slots is None else self._there[groups]

    def by_slot(self, codes: Tensor, outside: int) -> Tensor:
        """Codes `[groups, columns]` of all slots: `[slots]`; those that only pad have another."""
        if self._slots is None:
            return codes.view(-1)
        found = codes.view(-1)[self._slots.clamp(min=0)]
        return torch.where(self._slots >= 0, found, outside)

    def refusal(self, group: int, column: int, what: str) -> Reject:
        """That a value of a group is not what it should be."""
        row, index = divmod(group, self._count)
        place = f"group {index}" if self._count > 1 else f"column {column}"
        return Reject(f"row {row}, {place} holds {float(self.values[group, column]):g}, {what}")
