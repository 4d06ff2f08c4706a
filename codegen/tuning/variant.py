"""Variant: a template with a schedule, rendered, or a library call with one; and its functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import Schedule, digest
from sparsecompile.kernels.template import Source


@dataclass(frozen=True)
class Variant:
    """A candidate that can be built.

    Attributes:
        template: what it comes from: a template, or a library call.
        schedule: its choices.
        source: the rendered text; None of a library call.
    """

    template: Packer
    schedule: Schedule
    source: Source | None

    @property
    def name(self) -> str:
        """Template and schedule."""
        return f"{self.template.name} {self.schedule}".strip()

    @property
    def layout(self) -> str:
        """Name of the layout it reads."""
        return self.template.layout(self.schedule)

    @property
    def source_name(self) -> str:
        """Name of its source; empty of a library call."""
        return self.source.name if self.source is not None else ""

    def fits(self, problem: Problem) -> bool:
        """Whether it serves a problem."""
        return self.template.fits(problem)

    @cached_property
    def digest(self) -> str:
        """Stands for its name and source; made once of what may be tens of kilobytes."""
        return digest(self.name, repr(self.source))

    @property
    def kernels(self) -> tuple[tuple[str, int | None], ...]:
        """Its functions, as in `Source.kernels`; a library call is one for every m."""
        return self.source.kernels if self.source is not None else ((self.template.name, None),)


@dataclass(frozen=True)
class Function:
    """A candidate: one function of a variant.

    Attributes:
        variant: where it is.
        symbol: its name there.
        largest_m: the last m it serves, or None.
    """

    variant: Variant
    symbol: str
    largest_m: int | None

    @cached_property
    def name(self) -> str:
        """`strips masked=1 ... sc_linear_decode`; of a library call, that of its variant."""
        variant = self.variant
        return f"{variant.name} {self.symbol}" if variant.source is not None else variant.name

    @property
    def layout(self) -> str:
        """Name of the layout it reads."""
        return self.variant.layout

    def serves(self, rows: int) -> bool:
        """Whether it can be called with this m."""
        return self.largest_m is None or rows <= self.largest_m

    def range(self, largest_m: int | None, *, dense: bool = False) -> Range:
        """The range of m up to `largest_m`, or without an end, served by it."""
        variant = self.variant
        stage_m = 0 if variant.source is None else dict(variant.source.stages).get(self.symbol, 0)
        return Range(largest_m, variant.source_name, self.symbol, variant.schedule, dense, stage_m)


def functions_of(variants: Iterable[Variant]) -> list[Function]:
    """All functions of the variants, in their order."""
    return [Function(v, symbol, largest) for v in variants for symbol, largest in v.kernels]


def variants_of(functions: Sequence[Function], ranges: Sequence[Range]) -> tuple[Variant, ...]:
    """The variants that ranges need, in their order."""
    needed = dict.fromkeys((part.source, part.schedule) for part in ranges)
    known = {(f.variant.source_name, f.variant.schedule): f.variant for f in functions}
    return tuple(known[each] for each in needed)
