"""Tiles: a kind of what is stored of W, and how that is multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from sparsecompile.codegen.cpp.strips.values import values_of
from sparsecompile.codegen.cpp.strips.vectors import Vectors
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    import sympy

    from sparsecompile.kernels.cost import Cost

TILE_COLUMNS = 32


@dataclass(frozen=True)
class Tiles(ABC):
    """Tiles of one kind, as high as a vector has lanes.

    Attributes:
        vectors: what they are read and multiplied with.
        columns: of a tile.
        stores_all: whether they store a value for every place.
        masked: whether they store one bit a value, and the values that are not zero.
        lists: whether many rows of x are multiplied with lists of what is kept.
        paired: whether they store two values of every four columns.
        skips: whether those without any value are not stored.
    """

    vectors: Vectors
    columns: int = TILE_COLUMNS

    stores_all: ClassVar[bool] = False
    masked: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    skips: ClassVar[bool] = False

    @property
    def names(self) -> Mapping[str, int]:
        """What a schedule, and so the generated source, calls them by."""
        return {
            "strip_rows": self.vectors.rows,
            "masked": int(self.masked),
            "lists": int(self.lists),
            "paired": int(self.paired),
            "skips": int(self.skips),
            "tile_columns": self.columns,
        }

    def fits(self, spec: KernelSpec, target: Target) -> bool:
        """Whether they may be the best for a weight of the format: here, for one with zeros."""
        return bool(spec.format.structure.index_bits() != 0)

    def bits(self, spec: KernelSpec) -> int:
        """Of a stored value."""
        return values_of(spec).bits(not self.masked and not self.paired)

    @abstractmethod
    def choices(self, spec: KernelSpec, target: Target) -> Mapping[str, int]:
        """The choices of a default schedule, beside `names` and those for few rows of x."""

    def alternatives(self, chosen: Mapping[str, int]) -> Mapping[str, tuple[int, ...]]:
        """Other values of a schedule's choices that a full search tries."""
        return {
            "decode_streams": tuple({1, 2, 4} - {chosen["decode_streams"]}),
            "panel_bytes": (chosen["panel_bytes"] // 2,),
        }

    @abstractmethod
    def batch(self, schedule: Schedule) -> tuple[str, ...]:
        """Files of the loops over many rows of x, where these are not repeated some at a time."""

    def depth(self, spec: KernelSpec) -> int:
        """Columns of a vector."""
        return values_of(spec).depth(self.paired)

    def places(self, weight: Contents) -> int:
        """How many columns of rows stored tiles have."""
        (n, k), rows = weight.shape, self.vectors.rows
        return -(-n // rows) * rows * -(-k // self.columns) * self.columns

    def stored_bits(self, places: int, weight: Contents, value_bits: float) -> float:
        """Bits of the tiles: here all of their values, of so many bits each."""
        return places * value_bits

    def operations(self, places: int, weight: Contents) -> sympy.Expr:
        """What m rows of x take: here all of the values."""
        from sparsecompile.formats.symbols import m

        return 2 * m * places

    def operands(self, spec: KernelSpec, schedule: Schedule) -> str:
        """What is multiplied: a kind of `Cost`."""
        if schedule["repeats_rows"]:
            return "int8"
        return "bfloat16" if spec.dtype == torch.bfloat16 else "float32"

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """All that is stored is moved, and multiplied."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        (n, k), places = weight.shape, self.places(weight)
        # Codes of some widths take more than they have, what belongs to groups as much as it is.
        value_bits = weight.value_bits + self.bits(spec) - spec.coding.bits
        stored = self.stored_bits(places, weight, value_bits) // 8
        moved = stored + m * (n + k) * spec.dtype.itemsize
        return Cost(moved, self.operations(places, weight), self.operands(spec, schedule))
