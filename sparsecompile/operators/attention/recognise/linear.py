"""Linear: integers of a grid that rise evenly along its axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sparsecompile.operators.attention.recognise.term import Term

AXES = 4
"""Batch, heads, queries, keys: -4 to -1, as tensors broadcast."""


@dataclass(frozen=True)
class Linear:
    """`constant + sum of slopes[axis] * index[axis] + sum of factor * atom`.

    Attributes:
        constant: of it.
        slopes: along each of the `AXES`.
        atoms: with their factors, none of which is 0.
    """

    constant: int = 0
    slopes: tuple[int, ...] = (0,) * AXES
    atoms: frozenset[tuple[Atom, int]] = frozenset()

    @classmethod
    def along(cls, axis: int, start: int = 0, slope: int = 1) -> Linear:
        """`start + slope * index[axis]`."""
        return cls(start, tuple(slope if place == AXES + axis else 0 for place in range(AXES)))

    @classmethod
    def of(cls, atom: Atom) -> Linear:
        """The atom itself."""
        return cls(atoms=frozenset({(atom, 1)}))

    def __add__(self, other: Linear | int) -> Linear:
        """The sum."""
        if isinstance(other, int):
            return Linear(self.constant + other, self.slopes, self.atoms)
        counts: Counter[Atom] = Counter(dict(self.atoms))
        for atom, factor in other.atoms:
            counts[atom] += factor
        return Linear(
            self.constant + other.constant,
            tuple(a + b for a, b in zip(self.slopes, other.slopes, strict=True)),
            frozenset((atom, factor) for atom, factor in counts.items() if factor),
        )

    def __mul__(self, factor: int) -> Linear:
        """That many times."""
        return Linear(
            self.constant * factor,
            tuple(slope * factor for slope in self.slopes),
            frozenset((atom, each * factor) for atom, each in self.atoms if factor),
        )

    def __neg__(self) -> Linear:
        """The negative."""
        return self * -1

    def __sub__(self, other: Linear | int) -> Linear:
        """The difference."""
        return self + -other

    def slope(self, axis: int) -> int:
        """Along an axis."""
        return self.slopes[axis]

    def without(self, axis: int) -> Linear:
        """At index 0 of an axis, but for atoms that depend on it."""
        return self - Linear.along(axis, slope=self.slopes[axis])

    def depends_on(self, axis: int) -> bool:
        """Whether it may differ along an axis."""
        return self.slopes[axis] != 0 or any(atom.depends_on(axis) for atom, _ in self.atoms)

    def terms(self) -> Iterator[Term]:
        """Those in its atoms."""
        for atom, _ in self.atoms:
            if isinstance(atom, Term):
                yield atom
            else:
                yield from atom.inner.terms()


@dataclass(frozen=True)
class Floor:
    """`inner // step`, for a step of 1 or more."""

    inner: Linear
    step: int

    def depends_on(self, axis: int) -> bool:
        """As what it is made of."""
        return self.inner.depends_on(axis)


@dataclass(frozen=True)
class Distance:
    """`|inner|`."""

    inner: Linear

    def depends_on(self, axis: int) -> bool:
        """As what it is made of."""
        return self.inner.depends_on(axis)


@dataclass(frozen=True)
class Start:
    """Of a place in packed sequences, its position less its place: that of its sequence.

    It is the same for a query and a key of one sequence, and nothing else is known of it. `inner`
    is the table of positions.
    """

    inner: Linear

    def depends_on(self, axis: int) -> bool:
        """On all: no end is made of it, since what is compared within a sequence cancels it."""
        return True


Atom: TypeAlias = Term | Floor | Distance | Start
