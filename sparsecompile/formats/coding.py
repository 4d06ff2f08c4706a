"""Coding: how a codec stores one value, for kernels that read it without the codec's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sparsecompile.errors import Reject

Kind = Literal["float", "affine", "table", "fp8"]
MISSING = {
    "table": "the values of {codec} are places in a table, in which no kernel looks them up",
    "fp8": "the values of {codec} are floats of 8 bits, which no kernel widens",
    "zero_points": "the integers of {codec} have zero points, which no kernel takes off",
    "rounds": "the values of {codec} are rounded when they are decoded, which no kernel does",
}
"""What has no kernel that reads codings."""


@dataclass(frozen=True)
class Coding:
    """What all values of a weight have in common, in C++ and in Triton.

    Attributes:
        bits: of a value.
        kind: what they are: `float`, the value itself, in the weight's dtype; `affine`, an integer
            that its scale is multiplied with; `table`, the place of the value in a table; `fp8`, a
            float of 8 bits that its scale is multiplied with.
        group: columns that share a scale, 0 for whole rows, None where values have no scales.
        scales: dtype of the scales, which are a tensor `scales` `[n, groups]`.
        zero_points: whether every scale has an integer of its own that stands for zero.
        rounds: whether values are rounded to the weight's dtype when they are decoded. Else they
            are multiplied as they are in float32.
    """

    bits: int
    kind: Kind = "float"
    group: int | None = None
    scales: torch.dtype = torch.bfloat16
    zero_points: bool = False
    rounds: bool = False

    def __post_init__(self) -> None:
        """Check that integers have scales, and floats none.

        Raises:
            ValueError: they have not, or some.
        """
        if self.kind in ("float", "affine") and (self.kind == "float") != (self.group is None):
            raise ValueError(f"{self.kind} values with scales for group={self.group}")

    @property
    def are_integers(self) -> bool:
        """Whether a value is an integer, times a scale."""
        return self.kind == "affine"


def readable(coding: Coding | None, codec: str) -> Coding:
    """A coding that kernels read: floats as they are, or integers times scales.

    Args:
        coding: what a codec says of its values.
        codec: its name.

    Raises:
        Reject: the codec says nothing, or something else.
    """
    if coding is None:
        raise Reject(f"{codec} does not say how a value is coded")
    facts = {coding.kind: True, "zero_points": coding.zero_points, "rounds": coding.rounds}
    for fact, message in MISSING.items():
        if facts.get(fact):
            raise Reject(message.format(codec=codec))
    return coding
