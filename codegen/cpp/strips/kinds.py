"""The kinds of tiles that strips may have."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecompile.codegen.cpp.strips.expanded import MaskedTiles, SkippingTiles, WholeTiles
from sparsecompile.codegen.cpp.strips.lists import ListedTiles
from sparsecompile.codegen.cpp.strips.paired import PairedTiles
from sparsecompile.codegen.cpp.strips.tiles import TILE_COLUMNS, Tiles
from sparsecompile.codegen.cpp.strips.vectors import AVX2, AVX512, Vectors
from sparsecompile.kernels.spec import Schedule


def kinds_of(vectors: Vectors) -> Sequence[Tiles]:
    """Every kind, best guess first."""
    return (
        PairedTiles(vectors),
        WholeTiles(vectors),
        MaskedTiles(vectors),
        SkippingTiles(vectors),
        ListedTiles(vectors),
        SkippingTiles(vectors, TILE_COLUMNS // 2),
    )


def kind_of(schedule: Schedule) -> Tiles:
    """The kind that a schedule is for."""
    chosen = dict(schedule.choices)
    kinds = (*kinds_of(AVX2), *kinds_of(AVX512))
    return next(kind for kind in kinds if kind.names.items() <= chosen.items())
