"""Comparisons of integers as conditions on keys."""

from __future__ import annotations

from sparsecompile.errors import Reject
from sparsecompile.operators.attention.recognise.conditions import ALWAYS, NEVER, Conditions
from sparsecompile.operators.attention.recognise.integers import TURNED, decide
from sparsecompile.operators.attention.recognise.linear import Distance, Floor, Linear
from sparsecompile.operators.attention.recognise.term import Term


def compared(op: str, difference: Linear, term: Term) -> Conditions:
    """`difference op 0`.

    Args:
        op: one of `TURNED`.
        difference: of what is compared.
        term: the comparison.

    Raises:
        Reject: that is no interval of keys, and no literal.
    """
    decided = decide(op, difference)
    if decided is not None:
        return ALWAYS if decided else NEVER
    if not term.depends_on(-1):
        return Conditions(rows=frozenset({(term, True)}))
    if not difference.depends_on(-1):
        raise Reject(f"{term.node.name} compares keys with themselves")
    if not term.depends_on(-2) and any(each.depends_on(-1) for each in difference.terms()):
        return Conditions(keys=frozenset({(term, True)}))
    return _solved(op, difference, term)


def _solved(op: str, difference: Linear, term: Term) -> Conditions:
    """As ends of intervals: the part that depends on the key is taken to the left."""
    slope = difference.slope(-1)
    atoms = [(atom, factor) for atom, factor in difference.atoms if atom.depends_on(-1)]
    factors = [slope] * (slope != 0) + [factor for _, factor in atoms]
    if factors not in ([1], [-1]):
        return _same(op, difference, term)
    if factors == [-1]:
        op, difference = TURNED[op], -difference
    if slope:
        return _ends(op, -difference.without(-1), term)
    atom = atoms[0][0]
    right = Linear.of(atom) - difference
    if isinstance(atom, Floor):
        return _floor(op, atom, right, term)
    if isinstance(atom, Distance) and op in ("le", "lt"):
        return _solved(op, atom.inner - right, term) & _solved(op, -atom.inner - right, term)
    return _same(op, difference, term)


def _ends(op: str, right: Linear, term: Term) -> Conditions:
    """`kv op right`."""
    lows, highs = set(), set()
    if op in ("ge", "gt", "eq"):
        lows = {right + (op == "gt")}
    if op in ("le", "lt", "eq"):
        highs = {right + (op != "lt")}
    if op == "ne":
        raise Reject(f"{term.node.name} leaves one key out, which cuts an interval in two")
    return Conditions(frozenset(lows), frozenset(highs))


def _floor(op: str, atom: Floor, right: Linear, term: Term) -> Conditions:
    """`inner // step op right`: `inner` lies in the chunks that are meant."""
    first, end = right * atom.step, (right + 1) * atom.step
    if op == "ne":
        raise Reject(f"{term.node.name} leaves one chunk out, which cuts an interval in two")
    found = Conditions()
    if op in ("ge", "gt", "eq"):
        found = found & _solved("ge", atom.inner - (end if op == "gt" else first), term)
    if op in ("le", "lt", "eq"):
        found = found & _solved("lt", atom.inner - (first if op == "lt" else end), term)
    return found


def _same(op: str, difference: Linear, term: Term) -> Conditions:
    """`of the query == of the key`."""
    keys = Linear(0, (0, 0, 0, difference.slope(-1))) + Linear(
        atoms=frozenset(each for each in difference.atoms if each[0].depends_on(-1))
    )
    if op != "eq" or keys.depends_on(-2):
        raise Reject(
            f"{term.node.name} compares what depends on queries and on keys by {op!r}, which gives "
            "no interval of keys"
        )
    return Conditions(same=frozenset({(-(difference - keys), keys)}))
