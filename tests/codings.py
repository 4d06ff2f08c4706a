"""Codecs for tests that say of their values what the built-in ones do not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsecompile.codecs.float import Float
from sparsecompile.formats.coding import Coding


@dataclass(frozen=True, eq=False)
class Coded(Float):
    """Floats, of which another coding is said."""

    said: Coding | None = None

    def coding(self, dtype: torch.dtype) -> Coding | None:  # type: ignore[override]
        return self.said


OTHERS = (
    Coding(4, "table", table_rows=0),
    Coding(8, "fp8", 0),
    Coding(4, "affine", 128, offsets="zero_points"),
    Coding(4, "affine", 128, offsets="minima"),
    Coding(4, "affine", 32, rounds=True),
)
"""One of each kind that is no float as it is."""
