"""Tiles that are expanded, and then multiplied as if nothing of them were zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sparsecompile.codegen.cpp.strips.tiles import Tiles
from sparsecompile.codegen.cpp.strips.values import by_integers, values_of
from sparsecompile.codegen.cpp.strips.vectors import (
    AVX2,
    AVX512,
    fits_tile_registers,
    repeats_decoding,
)
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target


class ExpandedTiles(Tiles):
    """What tiles are expanded to is multiplied, by loops that know nothing of zeros.

    `batch_columns` columns of W are expanded at once, beside `panel_bytes` of x. `group_strips`
    strips share a tile of x while it is near; where tiles are skipped, only those that skip the
    same ones.
    """

    def choices(self, spec: KernelSpec, target: Target) -> Mapping[str, int]:
        """First-level caches hold a chunk of some strips beside a tile of x."""
        if self.vectors is AVX2:
            return {
                "repeats_rows": int(by_integers(spec)),
                "uses_amx": 0,
                "batch_columns": 128 if spec.dtype == torch.float32 else 256,
                # Blocks are 16 rows high, or a multiple: then two strips have the same tiles.
                "group_strips": 2 if self.skips else 3,
            }
        by_amx = fits_tile_registers(spec, target, self.skips)
        choices = {
            # Masks would have to be expanded for all of these rows again.
            "repeats_rows": int(
                repeats_decoding(spec, target)
                and values_of(spec).are_summed(self.stores_all)
                and (not self.masked or bool(spec.coding.group))
            ),
            "uses_amx": int(by_amx),
            # Columns that are summed in one chain: in float32 their rounding shows.
            "batch_columns": 512 if spec.dtype == torch.bfloat16 else 32,
        }
        if self.skips:
            return choices | {"group_strips": 1}
        # Tiles of x are read from the second-level cache once for all strips of a group. Where
        # nothing but vectors multiplies it is better to expand W once for all of x.
        if by_amx:
            return choices | {"group_strips": 4}
        return choices | {"group_strips": 2, "panel_bytes": 4 << 20}

    def alternatives(self, chosen: Mapping[str, int]) -> Mapping[str, tuple[int, ...]]:
        """Other parts of W at once."""
        found = dict(super().alternatives(chosen))
        if self.vectors is AVX512:
            found["decode_pairs"] = (1 - chosen["decode_pairs"],)
        columns = chosen["batch_columns"]
        halved = max(columns // 2, self.columns)
        return found | {"batch_columns": tuple({halved, columns * 2} - {columns})}

    def batch(self, schedule: Schedule) -> tuple[str, ...]:
        """Chunks of W, by tile registers or by vectors."""
        registers = "amx" if schedule["uses_amx"] else "no_tiles"
        names = ("chunk", "vectors", registers, "expanded")
        return tuple(f"strips/batch/{name}.h" for name in names)


class WholeTiles(ExpandedTiles):
    """All values of all tiles."""

    stores_all = True

    def fits(self, spec: KernelSpec, target: Target) -> bool:
        """Where there are no zeros to leave out."""
        return not super().fits(spec, target)


class MaskedTiles(ExpandedTiles):
    """A bit a value, and the values that are not zero."""

    masked = True

    def stored_bits(self, places: int, weight: Contents, value_bits: float) -> float:
        """Masks and what is kept."""
        return places + weight.values * value_bits


class SkippingTiles(ExpandedTiles):
    """All values of those tiles that have any."""

    skips = True

    def fits(self, spec: KernelSpec, target: Target) -> bool:
        """Where a code stands for zero: some of their places are empty."""
        return super().fits(spec, target) and values_of(spec).has_zero

    def places(self, weight: Contents) -> int:
        """Of tiles with a value."""
        rows = self.vectors.rows
        return weight.tiles(rows, self.columns) * rows * self.columns

    def stored_bits(self, places: int, weight: Contents, value_bits: float) -> float:
        """Which tile of its strip each is, in four bytes, and its values."""
        return places // (self.vectors.rows * self.columns) * 32 + places * value_bits
