"""MaskPattern: which keys a query attends to, as a predicate and as tiles."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from sparsecompile.component import Component
from sparsecompile.errors import OptionError
from sparsecompile.masks.block_mask import BlockMask
from sparsecompile.masks.build import build
from sparsecompile.masks.grid import PARTIAL, Grid
from sparsecompile.masks.intervals import Intervals

OPTION = "attention"
"""Option whose value patterns are."""


class MaskPattern(Component):
    """Which keys a query attends to.

    An instance is a pattern with its parameters, such as `Window(256)`; one instance of each
    family is registered. A pattern says it twice, and laws hold the two against each other:

    - `keeps` is the definition: a predicate of places;
    - `tiles` says, without looking at places, which tiles are surely full or empty.

    Patterns are equal where their texts are, which `parse` of `sparsecompile.masks.text` reads.
    """

    family: ClassVar[str]
    """Name without parameters, such as `window`."""

    @property
    def name(self) -> str:
        """The text: `window(256)`; parameters by name where there are several."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        given = {
            field.name.rstrip("_"): getattr(self, field.name)
            for field in fields
            if getattr(self, field.name) != field.default
        }
        if len(fields) == 1:
            texts = [str(value) for value in given.values()]
        else:
            texts = [f"{key}={value}" for key, value in given.items()]
        return f"{self.family}({','.join(texts)})" if texts else self.family

    @classmethod
    def parse(cls, parameters: str, read: Callable[[str], MaskPattern]) -> MaskPattern:
        """Make a pattern from the text between its parentheses.

        Args:
            parameters: integers, by place or by name, unless the family says otherwise.
            read: of the text of a pattern in it, that pattern.

        Raises:
            ValueError: the text does not fit this family.
        """
        fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        values: dict[str, int] = {}
        for place, text in enumerate(filter(None, parameters.split(","))):
            key, equals, value = text.rpartition("=")
            if not equals and place < len(fields):
                key = fields[place]
            known = {field.rstrip("_"): field for field in fields} | {f: f for f in fields}
            if key not in known:
                takes = ", ".join(field.rstrip("_") for field in fields) or "nothing"
                raise ValueError(f"it takes {takes}, not {text!r}")
            values[known[key]] = int(value)
        missing = [
            field.name.rstrip("_")
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
            if field.default is dataclasses.MISSING and field.name not in values
        ]
        if missing:
            raise ValueError(f"it needs {', '.join(missing)}")
        return cls(**values)

    @abstractmethod
    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Whether queries attend to keys, as the `mask_mod` of FlexAttention says it.

        Args:
            b: entries of the batch, int64.
            h: heads, int64.
            q: positions of queries, int64.
            kv: positions of keys, int64; all four broadcast.

        Returns:
            bool, of the shape that they broadcast to, or that broadcasts to it.
        """

    def tiles(self, grid: Grid) -> Tensor:
        """What is known of each tile: `NONE`, `PARTIAL` or `FULL` of `sparsecompile.masks.grid`.

        `PARTIAL` is never wrong: such tiles are looked into.

        Returns:
            `[batch or 1, heads or 1, rows, columns]` int8.
        """
        return torch.full((1, 1, len(grid.queries), len(grid.keys)), PARTIAL, dtype=torch.int8)

    def intervals(self, grid: Grid) -> Intervals | None:
        """The keys of every query as one interval, None where they may be no interval."""
        return None

    @property
    def batch(self) -> int:
        """Entries of the batch that it tells apart; 1 where it does not."""
        return 1

    @property
    def heads(self) -> int:
        """Heads that it tells apart; 1 where it does not."""
        return 1

    def check(self, grid: Grid) -> None:
        """Return if the pattern makes sense for a matrix.

        Raises:
            OptionError: it names places that are not there.
        """

    def blocks(self, q: int, kv: int, *, offset: int = 0, kv_offset: int = 0) -> BlockMask:
        """The kept tiles of a matrix.

        Args:
            q: number of queries.
            kv: number of keys.
            offset: position of the first query.
            kv_offset: position of the first key.

        Raises:
            OptionError: the pattern names places that are not there.
        """
        grid = Grid(q, kv, offset, kv_offset)
        self.check(grid)
        return build(grid, self.batch, self.heads, self.tiles, self.keeps)

    def __and__(self, other: MaskPattern) -> MaskPattern:
        """What both keep."""
        return All(_flat(All, self) + _flat(All, other))

    def __or__(self, other: MaskPattern) -> MaskPattern:
        """What one of them keeps."""
        return Either(_flat(Either, self) + _flat(Either, other))

    def __eq__(self, other: object) -> bool:
        """Same class and text."""
        return type(self) is type(other) and self.name == str(other)

    def __hash__(self) -> int:
        """By text."""
        return hash(self.name)

    def __str__(self) -> str:
        """The text."""
        return self.name


@dataclasses.dataclass(frozen=True, eq=False)
class Composed(MaskPattern):
    """Several patterns in one."""

    parts: tuple[MaskPattern, ...]

    def __post_init__(self) -> None:
        """Check that they tell the same entries and heads apart.

        Raises:
            OptionError: they do not.
        """
        for what in ("batch", "heads"):
            sizes = sorted({getattr(part, what) for part in self.parts} - {1})
            if len(sizes) > 1:
                raise OptionError(
                    OPTION, f"{self.name}: parts of it have {what} {sizes}; give them one size"
                )

    @property
    def batch(self) -> int:
        """That of the part which has one."""
        return max(part.batch for part in self.parts)

    @property
    def heads(self) -> int:
        """That of the part which has them."""
        return max(part.heads for part in self.parts)

    def check(self, grid: Grid) -> None:
        """Every part's."""
        for part in self.parts:
            part.check(grid)


class All(Composed):
    """`a & b`: what every part keeps."""

    @property
    def name(self) -> str:
        """`a & b`, with parentheses around parts of `|`."""
        return " & ".join(f"({p})" if isinstance(p, Either) else str(p) for p in self.parts)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of all."""
        return reduce(torch.logical_and, (part.keeps(b, h, q, kv) for part in self.parts))

    def tiles(self, grid: Grid) -> Tensor:
        """The least that is known."""
        return reduce(torch.minimum, (part.tiles(grid) for part in self.parts))

    def intervals(self, grid: Grid) -> Intervals | None:
        """Where they overlap."""
        found = [part.intervals(grid) for part in self.parts]
        known = [each for each in found if each is not None]
        return reduce(Intervals.__and__, known) if len(known) == len(found) else None


class Either(Composed):
    """`a + b`, or `a | b`: what one of the parts keeps."""

    @property
    def name(self) -> str:
        """`a + b`."""
        return " + ".join(str(part) for part in self.parts)

    def keeps(self, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of one of them."""
        return reduce(torch.logical_or, (part.keeps(b, h, q, kv) for part in self.parts))

    def tiles(self, grid: Grid) -> Tensor:
        """The most that is known."""
        return reduce(torch.maximum, (part.tiles(grid) for part in self.parts))


def _flat(kind: type[Composed], pattern: MaskPattern) -> tuple[MaskPattern, ...]:
    return pattern.parts if isinstance(pattern, kind) else (pattern,)
