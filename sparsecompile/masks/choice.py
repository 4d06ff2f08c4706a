"""Choice: which keys a query attends to, chosen by what queries and keys hold."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar, TypeVar

from torch import Tensor

from sparsecompile.component import Component
from sparsecompile.masks.grid import Grid
from sparsecompile.masks.pattern import MaskPattern

C = TypeVar("C", bound="Choice")


class Choice(Component):
    """Which keys a query attends to, chosen in each call.

    A dataclass of one number, such as `TopBlocks(0.2)`; one instance of each family is registered.
    `choose` is the definition; `pattern` says the same without looking at every place.
    """

    family: ClassVar[str]
    """Name without the number, such as `top_blocks`."""

    @property
    def name(self) -> str:
        """The text: `top_blocks(0.2)`."""
        (number,) = dataclasses.astuple(self)  # type: ignore[call-overload]
        return f"{self.family}({number})"

    def parse(self: C, parameters: str) -> C:
        """One with the number between its parentheses.

        Raises:
            ValueError: it is none.
        """
        (field,) = dataclasses.fields(self)  # type: ignore[arg-type]
        number = type(getattr(self, field.name))(parameters)
        return dataclasses.replace(self, **{field.name: number})  # type: ignore[type-var]

    @abstractmethod
    def choose(self, q: Tensor, k: Tensor, own: Tensor, first: Tensor) -> Tensor:
        """The definition.

        Args:
            q: `[batch, heads, queries, d]`.
            k: `[batch, kv heads, keys, d]`.
            own: what the model's mask keeps: `[batch or 1, heads or 1, queries, keys]` bool.
            first: position of the first query; int64 without dimensions. There are no keys behind
                the last query's position.

        Returns:
            `[batch, heads, queries, keys]` bool; what of it the model's mask keeps counts.
        """

    @abstractmethod
    def pattern(self, q: Tensor, k: Tensor, own: MaskPattern, grid: Grid) -> MaskPattern:
        """The same as a pattern.

        Args:
            q: as for `choose`.
            k: likewise.
            own: what the model's mask keeps.
            grid: the matrix; its offset is the position of the first query.
        """

    def __str__(self) -> str:
        """The text."""
        return self.name
