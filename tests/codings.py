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


UNREAD = (
    (None, "float does not say how a value is coded"),
    (
        Coding(4, "table", table_rows=0),
        "the values of float are places in a table, in which no kernel looks them up",
    ),
    (Coding(8, "fp8", 0), "the values of float are floats of 8 bits, which no kernel widens"),
    (
        Coding(4, "affine", 128, offsets="zero_points"),
        "the integers of float have zero points, which no kernel takes off",
    ),
    (
        Coding(4, "affine", 128, offsets="minima"),
        "the integers of float have minima, which no kernel adds",
    ),
    (
        Coding(4, "affine", 32, rounds=True),
        "the values of float are rounded when they are decoded, which no kernel does",
    ),
)
"""Codings that no kernel reads, and what templates say of them."""
