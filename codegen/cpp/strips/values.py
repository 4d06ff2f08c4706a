"""Values: what strips store of values of W, and how that becomes what is multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.spec import KernelSpec

WHOLE_ROWS = 1 << 40
"""Columns of a group that no row is longer than."""


@dataclass(frozen=True)
class Values(ABC):
    """Values of one kind.

    Attributes:
        spec: of the kernel.
        coded: whether they are stored as codes of 8 bits at most.
        has_zero: whether a code stands for zero, so that places that were not kept may have it.
    """

    spec: KernelSpec

    coded: ClassVar[bool] = True
    has_zero: ClassVar[bool] = True

    @property
    def coding(self) -> Coding:
        """What the codec says of them."""
        return self.spec.coding

    @abstractmethod
    def files(self, stores_all: bool) -> tuple[str, ...]:
        """Files of `text/strips/layout` that read them.

        Args:
            stores_all: whether every place of a tile has a value.
        """

    @abstractmethod
    def constants(self) -> Mapping[str, int]:
        """What these files read."""

    def bits(self, shares_bytes: bool) -> int:
        """Of a code in a stream.

        Args:
            shares_bytes: whether codes of several vectors may share a byte.
        """
        return next(b for b in (2, 4, 8) if b >= self.coding.bits and (b > 2 or shares_bytes))

    def depth(self, by_pairs: bool) -> int:
        """Columns of a vector.

        Args:
            by_pairs: whether what is kept of four columns is one of its lanes.
        """
        return 4

    def are_summed(self, stores_all: bool) -> bool:
        """Whether they can be multiplied with integers, and scaled when sums are done.

        Args:
            stores_all: whether every place of a tile has a value.
        """
        return False


class FloatValues(Values):
    """Floats as they are."""

    coded = False

    def files(self, stores_all: bool) -> tuple[str, ...]:
        """Products of floats, or of pairs of bfloat16."""
        return ("float",)

    def constants(self) -> Mapping[str, int]:
        """No code, and no scales."""
        return {"cut": 0, "has_scales": 0, "group_columns": 0}

    def bits(self, shares_bytes: bool) -> int:
        """All of them."""
        return self.coding.bits

    def depth(self, by_pairs: bool) -> int:
        """Pairs of bfloat16."""
        return 2 if self.spec.dtype == torch.bfloat16 else 1


class IntegerValues(Values):
    """Integers that are nothing but scaled."""

    def files(self, stores_all: bool) -> tuple[str, ...]:
        """Scales come in late."""
        return ("scales", "codes", "integer")

    def constants(self) -> Mapping[str, int]:
        """The code of zero is in the middle."""
        group = self.coding.group or 0
        return {"cut": 1 << self.coding.bits - 1, "has_scales": 1, "group_columns": group}

    def are_summed(self, stores_all: bool) -> bool:
        """All of them."""
        return True


class DecodedValues(Values):
    """What is decoded before it is multiplied: rounded values, places in tables, small floats.

    Integers that are not rounded are, where few rows of x become integers, summed nevertheless.
    """

    has_zero = False

    def files(self, stores_all: bool) -> tuple[str, ...]:
        """How a code is decoded, and what is done with that."""
        coding = self.coding
        by_pairs = coding.kind == "table" and coding.bits <= 4 and not coding.rounds and stores_all
        return (coding.kind, "codes", "decoded", "table_pairs" if by_pairs else "decoded_pairs")

    def constants(self) -> Mapping[str, int]:
        """A number that is no code stands for what was not kept; rows are groups."""
        coding = self.coding
        return {
            "cut": 1 << 8,
            "has_scales": int(coding.group is not None),
            "group_columns": 0 if coding.group is None else coding.group or WHOLE_ROWS,
            "rounds_values": int(coding.rounds),
            "tables_of_strips": int(bool(coding.table_rows)),
        }

    def depth(self, by_pairs: bool) -> int:
        """A pair, or four."""
        return 2 if by_pairs else 4

    def are_summed(self, stores_all: bool) -> bool:
        """A group's least value comes in with the sum of all of its x."""
        return stores_all and self.coding.are_integers and not self.coding.rounds


def values_of(spec: KernelSpec) -> Values:
    """How strips store the values of a spec.

    Raises:
        Reject: its codec does not say how they are coded.
    """
    coding = spec.coding
    if coding.kind == "float":
        return FloatValues(spec)
    return IntegerValues(spec) if coding.is_scaled else DecodedValues(spec)


def rounds(spec: KernelSpec) -> bool:
    """Whether 16 bits a row of x are enough: float16's own are finer where elements are small."""
    return spec.activations == "int8" or spec.dtype == torch.bfloat16


def by_integers(spec: KernelSpec) -> bool:
    """Whether values are integers, and many rows of x become such."""
    return isinstance(values_of(spec), IntegerValues) and rounds(spec)
