"""Conditions: what a place has to fulfil to be kept, all of it, in the form that kernels read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from sparsecompile.operators.attention.recognise.linear import Linear
from sparsecompile.operators.attention.recognise.term import Term

Literal = tuple[Term, bool]
"""A boolean term, and what it has to be."""


@dataclass(frozen=True)
class Conditions:
    """`low <= kv < high` for every end, and every literal as it has to be, and ids that are equal.

    Attributes:
        lows: that depend on no key.
        highs: likewise.
        keys: literals that depend on no query.
        rows: literals that depend on no key.
        same: pairs of a Linear that depends on no key and one that depends on no query.
    """

    lows: frozenset[Linear] = frozenset()
    highs: frozenset[Linear] = frozenset()
    keys: frozenset[Literal] = frozenset()
    rows: frozenset[Literal] = frozenset()
    same: frozenset[tuple[Linear, Linear]] = frozenset()

    def __and__(self, other: Conditions) -> Conditions:
        """Both."""
        return Conditions(
            _strictest(self.lows | other.lows, 1),
            _strictest(self.highs | other.highs, -1),
            self.keys | other.keys,
            self.rows | other.rows,
            self.same | other.same,
        )

    def implies(self, other: Conditions) -> bool:
        """Whether the places are surely among the other's."""
        return self.is_never or (
            all(any(_is_least(mine - low) for mine in self.lows) for low in other.lows)
            and all(any(_is_least(high - mine) for mine in self.highs) for high in other.highs)
            and other.keys <= self.keys
            and other.rows <= self.rows
            and other.same <= self.same
        )

    @property
    def is_never(self) -> bool:
        """Whether surely no place fulfils them."""
        return any(_is_least(low - high) for low in {*self.lows, Linear(0)} for high in self.highs)

    def negated(self) -> Conditions | None:
        """What is left, None where that is no conjunction."""
        if self == ALWAYS:
            return NEVER
        if sum(len(getattr(self, field.name)) for field in fields(self)) != 1 or self.same:
            return None
        return Conditions(
            self.highs,
            self.lows,
            frozenset((term, not wanted) for term, wanted in self.keys),
            frozenset((term, not wanted) for term, wanted in self.rows),
        )

    def within(self, q: object, kv: object) -> Conditions:
        """Without ends that no key of the matrix lies beyond; sizes may be symbols."""
        if self.is_never:
            return NEVER
        return Conditions(
            frozenset(low for low in self.lows if not _at_most(low, q, 0)),
            frozenset(high for high in self.highs if not _at_most(-high, q, _negative(kv))),
            self.keys,
            self.rows,
            self.same,
        )


ALWAYS = Conditions()
NEVER = Conditions(highs=frozenset({Linear(0)}))


def _strictest(ends: Iterable[Linear], sign: int) -> frozenset[Linear]:
    """Of ends that differ by a constant the largest, or with the other sign the least."""
    best: dict[Linear, int] = {}
    for end in ends:
        key = end - end.constant
        best[key] = max(best.get(key, sign * end.constant), sign * end.constant)
    return frozenset(key + sign * constant for key, constant in best.items())


def _is_least(difference: Linear) -> bool:
    """Whether it is surely 0 or more."""
    return not difference.atoms and min(difference.slopes) >= 0 <= difference.constant


def _at_most(end: Linear, q: object, most: int | None) -> bool:
    """Whether it surely is at most so much for all queries."""
    if end.atoms or most is None or any(end.slopes[:2]):
        return False
    last = q - 1 if isinstance(q, int) else None
    rise = end.slope(-2)
    if rise > 0 and last is None:
        return False
    return end.constant + (rise * (last or 0) if rise > 0 else 0) <= most


def _negative(size: object) -> int | None:
    return -size if isinstance(size, int) else None
