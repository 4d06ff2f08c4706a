"""Sequences that are packed into one, told apart by where their positions begin anew."""

from __future__ import annotations

from collections.abc import Iterable

from sparsecompile.operators.attention.recognise.integers import Integers
from sparsecompile.operators.attention.recognise.linear import Linear
from sparsecompile.operators.attention.recognise.term import Term


class Packed:
    """Which tables are positions in packed sequences.

    `ids = (diff(positions, prepend=positions[:, :1] - 1) != 1).cumsum(-1)` rise where positions do
    not rise by 1. So within a sequence, `positions[b, i] - positions[b, j] == i - j`, whatever the
    positions are.

    Args:
        terms: those of a mask.
        integers: reads them.
    """

    def __init__(self, terms: Iterable[Term], integers: Integers) -> None:
        self._integers = integers
        self._ids = {
            positions: term
            for term in terms
            for positions in [_positions_of(term)]
            if positions is not None
        }

    @property
    def positions(self) -> frozenset[Term]:
        """The tables."""
        return frozenset(self._ids)

    def are_told_apart(self, positions: Term, same: frozenset[tuple[Linear, Linear]]) -> bool:
        """Whether conditions ask for queries and keys of one sequence."""
        return any(
            self._is_entry(query, self._ids[positions], -2)
            and self._is_entry(key, self._ids[positions], -1)
            for query, key in same
        )

    def _is_entry(self, linear: Linear, ids: Term, axis: int) -> bool:
        terms = list(linear.terms())
        if linear != Linear.of(terms[0]) or terms[0].op not in ("getitem", "index"):
            return False
        table, index = terms[0].args
        return table.unexpanded is ids and self._integers.is_place(index, axis)


def _positions_of(term: Term) -> Term | None:
    """The table of which a term is the ids."""
    match term:
        case Term(
            op="cumsum",
            args=(
                Term(
                    op="ne",
                    args=(
                        Term(
                            op="diff",
                            args=(Term() as positions,),
                            kwargs={"prepend": Term(op="sub", args=(Term() as first, 1)), **more},
                        ),
                        1,
                    ),
                ),
                -1,
            ),
        ) if first.op == "getitem" and more in ({}, {"dim": -1}):
            table, index = first.args
            is_first = index == (slice(None), slice(None, 1))
            is_one = table.unexpanded is positions.unexpanded and positions.value.dim() == 2
            return positions.unexpanded if is_first and is_one else None
    return None
