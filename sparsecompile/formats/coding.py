"""Coding: how a codec stores one value, for kernels that read it without the codec's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sparsecompile.errors import Reject

Kind = Literal["float", "affine", "table", "fp8"]
Offsets = Literal["zero_points", "minima"]


@dataclass(frozen=True)
class Coding:
    """What all values of a weight have in common, in C++ and in Triton.

    A value is `scale * value(code)`, `scale * value(code) + minimum`, or `value(code)` where there
    are no scales; product and sum are each rounded to float32 at most once, whatever is exact.

    Attributes:
        bits: of a code.
        kind: what a code stands for: `float`, the value itself, in the weight's dtype; `affine`, an
            integer: `code - 2 ** (bits - 1)`, `code - zero_point`, or with minima the code itself;
            `table`, an entry of a table; `fp8`, a float of 8 bits.
        group: columns that share a scale, 0 for whole rows, None where values have no scales.
        scales: dtype of the scales, which are a tensor `scales` `[n, groups]`.
        offsets: name of one more tensor `[n, groups]`, if there is one: `zero_points` uint8, or
            `minima` in the dtype of the scales.
        rounds: whether values are rounded to the weight's dtype when they are decoded. Else they
            are multiplied as they are in float32.
        table: the entries, where these belong to the codec.
        table_rows: rows of the weight that share a table where these belong to the weight, 0 for
            all: a tensor `table` `[ceil(n / rows) or 1, 2 ** bits]` in the weight's dtype.
        exponent: bits of the exponent of an fp8: 4 (e4m3fn) or 5 (e5m2).
    """

    bits: int
    kind: Kind = "float"
    group: int | None = None
    scales: torch.dtype = torch.bfloat16
    offsets: Offsets | None = None
    rounds: bool = False
    table: tuple[float, ...] = ()
    table_rows: int | None = None
    exponent: int = 4

    def __post_init__(self) -> None:
        """Check that integers have scales, and floats none, and that tables have entries.

        Raises:
            ValueError: they have not, or some.
        """
        if self.kind in ("float", "affine") and (self.kind == "float") != (self.group is None):
            raise ValueError(f"{self.kind} values with scales for group={self.group}")
        if self.kind == "table" and len(self.table) != 2**self.bits and self.table_rows is None:
            raise ValueError(f"codes of {self.bits} bits in a table of {len(self.table)} entries")

    @property
    def is_scaled(self) -> bool:
        """Whether a value is nothing but an integer times a scale, and not rounded."""
        return self.kind == "affine" and self.offsets is None and not self.rounds

    @property
    def is_decoded(self) -> bool:
        """Whether values take more than one product to be had: neither floats nor `is_scaled`."""
        return self.kind != "float" and not self.is_scaled

    @property
    def are_integers(self) -> bool:
        """Whether a value is an integer, times a scale."""
        return self.kind == "affine"


def readable(coding: Coding | None, codec: str) -> Coding:
    """A coding, for kernels that read it.

    Args:
        coding: what a codec says of its values.
        codec: its name.

    Raises:
        Reject: the codec says nothing.
    """
    if coding is None:
        raise Reject(f"{codec} does not say how a value is coded")
    return coding
