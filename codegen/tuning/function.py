"""BuiltFunction: a candidate of the tuner, one function of a generated source or a library call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsecompile.codegen.tuning.choose import Function
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.kernels.template import Range


@dataclass(frozen=True)
class BuiltFunction(Function):
    """A function of a variant.

    Attributes:
        variant: where it is.
        symbol: its name there.
        largest_m: the last m it serves, or None.
    """

    variant: Variant
    symbol: str
    largest_m: int | None

    def serves(self, rows: int) -> bool:
        """Whether it can be called with this m."""
        return self.largest_m is None or rows <= self.largest_m

    def range(self, largest_m: int | None, *, dense: bool = False) -> Range:
        """The range of m up to `largest_m`, or without an end, served by it."""
        variant = self.variant
        return Range(largest_m, variant.source_name, self.symbol, variant.schedule, dense)


def functions_of(variants: Iterable[Variant]) -> list[BuiltFunction]:
    """All functions of the variants, in their order."""
    return [
        BuiltFunction(
            f"{v.name} {symbol}" if v.source is not None else v.name, v.layout, v, symbol, largest
        )
        for v in variants
        for symbol, largest in v.kernels
    ]


def variants_of(functions: Sequence[BuiltFunction], ranges: Sequence[Range]) -> tuple[Variant, ...]:
    """The variants that ranges need, in their order."""
    needed = dict.fromkeys((part.source, part.schedule) for part in ranges)
    known = {(f.variant.source_name, f.variant.schedule): f.variant for f in functions}
    return tuple(known[each] for each in needed)
