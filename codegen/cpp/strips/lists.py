"""Masked tiles that become lists of what is kept, for many rows of x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparsecompile.codegen.cpp.strips.kept import KeptTiles
from sparsecompile.codegen.cpp.strips.vectors import (
    AVX2,
    DECODE_ROWS,
    fits_tile_registers,
    multiplies_pairs,
)
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    import sympy

LISTING = 46
"""Operations that a core could do in the time in which a place is listed, as measured in AVX2."""


class ListedTiles(KeptTiles):
    """A bit a value, and the values that are not zero; an entry for `columns_of_word` columns.

    Lists are made of them while they are near.
    """

    masked = True
    lists = True

    def fits(self, spec: KernelSpec, target: Target) -> bool:
        """What is kept takes longer than everything where integers or tiles are multiplied."""
        dense_is_fast = spec.activations == "int8" or fits_tile_registers(spec, target)
        return super().fits(spec, target) and (self.vectors is AVX2 or not dense_is_fast)

    def choices(self, spec: KernelSpec, target: Target) -> Mapping[str, int]:
        """First-level caches hold the lists of some strips beside a tile of x."""
        by_pairs = self.vectors is not AVX2 and multiplies_pairs(spec, target)
        return {
            "block_strips": 16 if self.vectors is AVX2 else 8,
            "block_rows": 512,
            "step_tiles": 4 * (1 + by_pairs),
            "x_vectors": 4,
            "columns_of_word": 1 + by_pairs,
            "repeats_rows": 0,
            "uses_amx": 0,
        }

    def loops(self, by_floats: bool, x: str) -> tuple[str, ...]:
        """Lists find every column of x as it is."""
        return ("strips/x/as_it_is.h", x, "lists/multiply.h", "strips/batch/lists.h")

    def stored_bits(self, places: int, weight: Contents, value_bits: float) -> float:
        """Masks and what is kept."""
        return places + weight.values * value_bits

    def operations(self, places: int, weight: Contents) -> sympy.Expr:
        """Of many rows of x what is kept, and the listing: untimed elsewhere than in AVX2."""
        import sympy

        from sparsecompile.formats.symbols import m

        everything = super().operations(places, weight)
        if self.vectors is not AVX2:
            return everything
        listed = 2 * m * weight.values + LISTING * places
        return sympy.Piecewise((everything, m <= DECODE_ROWS), (listed, True))
