"""Vectors: the instructions that strips are written in, a lane for each row of W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sparsecompile.codegen.cpp.strips.values import IntegerValues, rounds, values_of
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target, isa_at_least

DECODE_ROWS = 8


@dataclass(frozen=True)
class Vectors:
    """AVX2 or AVX-512, and the files that are written for one of them.

    Attributes:
        rows: lanes of a vector, and so rows of a strip.
        file: the layout in these instructions.
        integers_of_x: few rows of x as integers.
        repeating: many rows of x as integers, some at a time.
    """

    rows: int
    file: str
    integers_of_x: str
    repeating: tuple[str, ...]

    def isa(self, target: Target) -> str:
        """What is built for: AVX2, or all that the target has."""
        return "avx2" if self is AVX2 else target.isa

    def decoding(self, spec: KernelSpec, target: Target) -> Mapping[str, int]:
        """Choices for few rows of x."""
        if self is AVX2:
            return {"decode_streams": 1 if values_of(spec).coded else 2, "decode_pairs": 0}
        # CPUs with AMX multiply two floats in less time than a vector of pairs of bfloat16.
        return {"decode_streams": 4, "decode_pairs": int(target.isa != "amx")}

    def integer_rows(self, spec: KernelSpec, stores_all: bool) -> int:
        """Up to how many rows of x are multiplied with integers as integers.

        In AVX2 one or two of more bits than 16, as two planes: more rows take longer than as
        floats.

        Args:
            spec: of the kernel.
            stores_all: whether every place of a tile has a value.
        """
        if not values_of(spec).are_summed(stores_all):
            return 0
        return DECODE_ROWS if rounds(spec) else 2 * (self is AVX2)


GROUPS = "strips/batch/groups.h"
AVX2 = Vectors(8, "strips/layout/avx2.h", "strips/x/words.h", (GROUPS, "strips/batch/words.h"))
AVX512 = Vectors(
    16, "strips/layout/avx512.h", "strips/x/integer.h", (GROUPS, "strips/batch/rows.h")
)


def vectors_for(spec: KernelSpec, target: Target) -> Vectors:
    """The widest that a spec's loops are written in."""
    if target.isa == "avx512" and values_of(spec).coded:
        # In 512 bits codes are written with VNNI and VBMI2.
        return AVX2
    return AVX512 if isa_at_least(target.isa, "avx512") else AVX2


def fits_tile_registers(spec: KernelSpec, target: Target, skips: bool = False) -> bool:
    """Whether AMX multiplies what `strips/layout/values.h` makes: pairs, or integers."""
    sums = isinstance(values_of(spec), IntegerValues) and not spec.coding.group and not skips
    integers = spec.activations == "int8" and sums
    return target.isa == "amx" and (integers or spec.dtype == torch.bfloat16)


def repeats_decoding(spec: KernelSpec, target: Target) -> bool:
    """Whether 512 bits multiply many rows of x as they do few: as integers, by VNNI alone."""
    return spec.activations == "int8" and target.isa == "avx512_bf16"


def multiplies_pairs(spec: KernelSpec, target: Target) -> bool:
    """Whether 512 bits of bfloat16 are multiplied as pairs."""
    return spec.dtype == torch.bfloat16 and isa_at_least(target.isa, "avx512_bf16")
