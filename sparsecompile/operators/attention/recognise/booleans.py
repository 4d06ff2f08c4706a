"""Boolean terms as conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.operators.attention.recognise.compare import compared
from sparsecompile.operators.attention.recognise.conditions import ALWAYS, NEVER, Conditions
from sparsecompile.operators.attention.recognise.integers import TURNED, Integers, constant_of
from sparsecompile.operators.attention.recognise.linear import Linear
from sparsecompile.operators.attention.recognise.packed import Packed
from sparsecompile.operators.attention.recognise.term import Term

_SAME = {"to", "bool", "type", "contiguous", "clone", "detach", "expand"}
_FRONT = {"unsqueeze", "view", "reshape", "getitem"}
_FLOATS = {"float", "half", "bfloat16", "double"}


class Booleans:
    """Reads masks.

    Args:
        terms: those of the mask.
        shape: of the mask.
    """

    def __init__(self, terms: Iterable[Term], shape: Sequence[Any]) -> None:
        self._integers = Integers(shape)
        self._packed = Packed(terms, self._integers)
        self._integers.positions = self._packed.positions
        self._read: dict[Term, Conditions] = {}

    def mask(self, term: Term) -> tuple[Conditions, float | None]:
        """The conditions, and what is added to the scores of places that do not fulfil them.

        That is None of a mask of booleans.

        Raises:
            Reject: it is not understood, or adds something else than 0 and a number that leaves
                nothing of a score.
        """
        is_added = term.value.dtype != torch.bool
        conditions, fill = self._added(term) if is_added else (self.read(term), None)
        for positions in self._integers.compared_positions:
            if not self._packed.are_told_apart(positions, conditions.same):
                raise Reject(
                    f"{term.node.name} compares positions {positions.node.name} of sequences that "
                    "it does not tell apart"
                )
        if fill is not None and fill not in (-math.inf, torch.finfo(term.value.dtype).min):
            raise Reject(f"{term.node.name} adds {fill:g} to scores, which is a bias, not a mask")
        return conditions, fill

    def read(self, value: Any) -> Conditions:
        """That of a term or a constant.

        Raises:
            Reject: it is not understood.
        """
        if isinstance(value, bool):
            return ALWAYS if value else NEVER
        if not isinstance(value, Term) or not isinstance(value.value, Tensor):
            raise Reject(f"{value} is no mask")
        if value not in self._read:
            self._read[value] = self._conditions(value)
        return self._read[value]

    def _conditions(self, term: Term) -> Conditions:
        if term.value.dtype != torch.bool:
            raise Reject(f"{term.node.name} is {term.value.dtype} where a mask is combined")
        if term.op == "and":
            return self.read(term.args[0]) & self.read(term.args[1])
        if term.op == "or":
            return self._either(term)
        if term.op == "not":
            return self._negated(term, self.read(term.args[0]))
        if term.op in TURNED and _are_integers(term):
            left, right = (self._integers.read(each) for each in term.args)
            return compared(term.op, left - right, term)
        if term.op in ("tril", "triu"):
            return self._triangle(term)
        if term.op in _SAME and _is_mask(term.args[0]):
            return self.read(term.args[0])
        if term.op in _FRONT and _keeps_last_axes(term):
            return self.read(term.args[0])
        constant = constant_of(term)
        if constant is not None:
            return ALWAYS if constant.constant else NEVER
        return _literal(term)

    def _either(self, term: Term) -> Conditions:
        first, second = (self.read(each) for each in term.args)
        if first.implies(second):
            return second
        if second.implies(first):
            return first
        raise Reject(f"{term.node.name} joins two masks, neither of which lies in the other")

    def _negated(self, term: Term, conditions: Conditions) -> Conditions:
        negated = conditions.negated()
        if negated is None:
            raise Reject(f"{term.node.name} is the opposite of several conditions")
        return negated

    def _triangle(self, term: Term) -> Conditions:
        """`tril`: `kv <= q + diagonal`; `triu`: `kv >= q + diagonal`; of a constant."""
        if constant_of(term.args[0]) not in (Linear(1), Linear(True)):
            raise Reject(f"{term.node.name} is a triangle of something else than ones")
        return self._cut(term)

    def _cut(self, term: Term) -> Conditions:
        diagonal = self._integers.read(term.argument(1, "diagonal", 0))
        difference = Linear.along(-1) - Linear.along(-2) - diagonal
        return compared("le" if term.op == "tril" else "ge", difference, term)

    def _added(self, term: Term) -> tuple[Conditions, float]:
        """Conditions under which 0 is added, and what is otherwise."""
        if term.op in _SAME | _FLOATS or (term.op in _FRONT and _keeps_last_axes(term)):
            return self._added(term.args[0])
        if _number(term) == 0:
            return ALWAYS, -math.inf
        if term.op == "add" and 0 in (numbers := [_number(each) for each in term.args]):
            return self._added(term.args[1 - numbers.index(0)])
        if term.op == "where":
            condition, kept, dropped = (self.read(term.args[0]), *map(_number, term.args[1:3]))
            if kept == 0 and dropped is not None:
                return condition, dropped
            if dropped == 0 and kept is not None:
                return self._negated(term, condition), kept
        if term.op == "masked_fill" and _number(term.args[0]) == 0:
            fill = _number(term.argument(2, "value"))
            if fill is not None:
                return self._negated(term, self.read(term.argument(1, "mask"))), fill
        if term.op == "triu" and _number(term.args[0]) is not None:
            return self._negated(term, self._cut(term)), _number(term.args[0]) or 0.0
        raise Reject(f"{term.node.name} adds what {term.op} gives to scores: no mask that is read")


def _number(value: Any) -> float | None:
    """A number, or that of a tensor which is filled with one."""
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, Term):
        return None
    if value.op in _SAME | _FLOATS:
        return _number(value.args[0])
    if value.op in ("tensor", "scalar_tensor"):
        return _number(value.args[0])
    if value.op in ("full", "new_full", "full_like"):
        return _number(value.argument(2 if value.op == "new_full" else 1, "fill_value"))
    constant = constant_of(value)
    return None if constant is None else float(constant.constant)


def _are_integers(term: Term) -> bool:
    values = [each.value if isinstance(each, Term) else each for each in term.args]
    return all(
        not value.dtype.is_floating_point and value.dtype != torch.bool
        if isinstance(value, Tensor)
        else not isinstance(value, (bool, float))
        for value in values
    )


def _is_mask(value: Any) -> bool:
    return getattr(getattr(value, "value", None), "dtype", None) == torch.bool


def _keeps_last_axes(term: Term) -> bool:
    """Whether a view only adds axes, or drops those of size 1, in front of queries and keys."""
    source = term.args[0]
    if not isinstance(source, Term) or not isinstance(source.value, Tensor):
        return False
    before, after = ([str(size) for size in each.value.shape] for each in (source, term))
    if term.op == "getitem" and not all(
        each in (None, Ellipsis, slice(None)) for each in _index(term)
    ):
        return False
    return len(before) >= 2 and before[-2:] == after[-2:] and set(before[:-2]) <= {"1"}


def _index(term: Term) -> tuple[Any, ...]:
    index = term.args[1]
    return index if isinstance(index, tuple) else (index,)


def _literal(term: Term) -> Conditions:
    """What is known when it is called: `keep[b, kv]`, or of a query whether it attends at all."""
    if not term.depends_on(-2) and not term.depends_on(-3):
        return Conditions(keys=frozenset({(term, True)}))
    if not term.depends_on(-1):
        return Conditions(rows=frozenset({(term, True)}))
    if term.op in ("placeholder", "get_attr"):
        raise Reject(f"{term.node.name} is given to the graph as a mask, which nothing is known of")
    raise Reject(f"{term.node.name} depends on queries and on keys by {term.op}")
