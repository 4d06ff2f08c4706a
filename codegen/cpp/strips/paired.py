"""Tiles that store two values of every four columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from sparsecompile.codegen.cpp.strips.kept import KeptTiles
from sparsecompile.codegen.cpp.strips.values import by_integers, values_of
from sparsecompile.codegen.cpp.strips.vectors import AVX2, multiplies_pairs, repeats_decoding
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.structures.n_m import NM

if TYPE_CHECKING:
    import sympy


class PairedTiles(KeptTiles):
    """The kind of each pair, and its values, where a structure promises that there are no more.

    What is permuted to meet them is x: nothing is expanded, and nothing else is multiplied.
    """

    paired = True

    def fits(self, spec: KernelSpec, target: Target) -> bool:
        """In AVX-512 floats, and pairs of bfloat16, are permuted as such.

        Tile registers multiply what is not kept of them in less time than vectors what is.
        """
        structure, values = spec.format.structure, values_of(spec)
        if not super().fits(spec, target) or structure.most_kept(4) > 2:
            return False
        # Fewer than two need a code that stands for zero.
        if not values.has_zero and structure != NM(2, 4):
            return False
        if self.vectors is AVX2:
            return True
        # Pairs of x are not rounded.
        if spec.activations != "float" and not values.are_summed(self.stores_all):
            return False
        if spec.dtype == torch.bfloat16:
            return target.isa == "avx512_bf16"
        return not values.coded

    def choices(self, spec: KernelSpec, target: Target) -> Mapping[str, int]:
        """As many sums as fit registers: 8 in AVX2."""
        if self.vectors is AVX2:
            blocks = {"block_strips": 32, "block_rows": 128, "step_tiles": 2, "x_vectors": 8}
            words = {"columns_of_word": 1 + by_integers(spec)}
            return {**blocks, **words, "repeats_rows": 0, "uses_amx": 0}
        by_pairs, values = multiplies_pairs(spec, target), values_of(spec)
        steps = {"step_tiles": 3, "x_vectors": 2} if by_pairs else {"step_tiles": 2, "x_vectors": 4}
        blocks = {"block_strips": 32, "block_rows": 256, "columns_of_word": 1 + by_pairs}
        return {
            **blocks,
            **steps,
            "repeats_rows": int(repeats_decoding(spec, target) and values.are_summed(False)),
            "uses_amx": 0,
        }

    def loops(self, by_floats: bool, x: str) -> tuple[str, ...]:
        """Floats find every column as it is, words the pairs that can be made of four."""
        if by_floats:
            return ("strips/x/as_it_is.h", x, "strips/batch/pairs_floats.h")
        if self.vectors is AVX2:
            return ("strips/x/choices.h", "strips/batch/pairs_words.h")
        return ("strips/x/choices.h", x, "strips/batch/pairs_bfloat16.h")

    def depth(self, spec: KernelSpec) -> int:
        """In AVX2 integers of 16 bits are multiplied, by twos."""
        return 2 if values_of(spec).coded and self.vectors is AVX2 else super().depth(spec)

    def stored_bits(self, places: int, weight: Contents, value_bits: float) -> float:
        """A bit a place, and half of the values."""
        return places + places // 2 * value_bits

    def operations(self, places: int, weight: Contents) -> sympy.Expr:
        """Of half of the values."""
        return super().operations(places // 2, weight)

    def operands(self, spec: KernelSpec, schedule: Schedule) -> str:
        """In AVX2 integers, where x may be rounded to 16 bits."""
        if self.vectors is AVX2 and by_integers(spec):
            return "int8"
        return super().operands(spec, schedule)
