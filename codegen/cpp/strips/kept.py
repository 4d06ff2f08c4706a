"""Tiles of which only what is kept is multiplied, with a row of x in each lane."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from sparsecompile.codegen.cpp.strips.tiles import Tiles
from sparsecompile.kernels.spec import Schedule


class KeptTiles(Tiles):
    """What is kept is multiplied as it is, and nothing else.

    `step_tiles` tiles of `block_strips` strips times `block_rows` rows of x, `x_vectors` vectors of
    them at once; a vector has `columns_of_word` columns of x in each lane.
    """

    def alternatives(self, chosen: Mapping[str, int]) -> Mapping[str, tuple[int, ...]]:
        """Other blocks."""
        blocks = {"block_strips": (16, 64), "step_tiles": (2, 4), "x_vectors": (4,)}
        return {**super().alternatives(chosen), **blocks}

    def batch(self, schedule: Schedule) -> tuple[str, ...]:
        """Blocks of x times what is kept."""
        by_floats = schedule["columns_of_word"] == 1
        loops = self.loops(by_floats, f"strips/x/{'floats' if by_floats else 'pairs'}.h")
        return ("turn.h", "transpose.h", "strips/x/tiles.h", *loops, "strips/batch/kept.h")

    @abstractmethod
    def loops(self, by_floats: bool, x: str) -> tuple[str, ...]:
        """Files that multiply what is kept.

        Args:
            by_floats: whether x are floats, and not pairs of 16 bits.
            x: the file that turns these.
        """
