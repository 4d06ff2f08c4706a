"""Integer terms as Linears: positions, offsets, what is looked up in them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.operators.attention.recognise.linear import AXES, Distance, Floor, Linear, Start
from sparsecompile.operators.attention.recognise.term import Term, is_one

_INTEGERS = (torch.int64, torch.int32)
_SAME = {"to", "long", "int", "contiguous", "clone", "detach", "expand", "type"}
"""Operations that change no value: tensors broadcast from the right, as Linears do."""
TURNED = {"le": "ge", "lt": "gt", "ge": "le", "gt": "lt", "eq": "eq", "ne": "ne"}
"""Comparisons, and those of what is negated."""
_FILLED = {"zeros": 0, "new_zeros": 0, "zeros_like": 0, "ones": 1, "new_ones": 1, "ones_like": 1}


class Integers:
    """Reads integer terms; what it does not understand is an atom.

    Args:
        shape: of the mask, up to `[batch, heads, q, kv]`.
    """

    def __init__(self, shape: Sequence[Any]) -> None:
        self._shape = shape
        self._read: dict[Term, Linear] = {}
        self.positions: frozenset[Term] = frozenset()
        """Tables that are positions in packed sequences."""
        self.compared_positions: set[Term] = set()
        """Those of which only what they are within a sequence was read."""

    def read(self, value: Any) -> Linear:
        """That of a term or a constant.

        Raises:
            Reject: it is no integer.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            return Linear(value)
        if not isinstance(value, Term):
            raise Reject(f"{value!r} is no integer")
        if value not in self._read:
            _check_integer(value)
            found = self._parts(value)
            self._read[value] = Linear.of(value) if found is None else found
        return self._read[value]

    def _parts(self, term: Term) -> Linear | None:
        """What it is made of, None where that is not understood."""
        if not isinstance(term.value, Tensor):
            return Linear(term.value) if isinstance(term.value, int) else None
        if term.op in _SAME or (term.op == "repeat" and _is_expanded(term)):
            return None if _is_no_integer(term.args[0]) else self.read(term.args[0])
        if term.op in ("arange", "add", "sub", "neg", "mul", "floordiv", "div", "abs"):
            return self._computed(term)
        if term.op in ("unsqueeze", "squeeze", "view", "reshape", "add_batch_dim"):
            return self._reshaped(term)
        if term.op in ("getitem", "index"):
            return self._indexed(term)
        if term.op == "diff":
            return self._differences(term)
        if term.op == "cumsum":
            return Linear() if self._is_nowhere(term.args[0]) else None
        return constant_of(term)

    def _computed(self, term: Term) -> Linear | None:
        if set(term.kwargs) - {"device", "dtype", "rounding_mode", "pin_memory", "requires_grad"}:
            return None
        if term.op == "arange":
            start, *_, step = (0, *term.args, 1)[len(term.args) > 1 :][:3]
            if step != 1 or not term.args:
                return None
            return self.read(start) + _rising(term, -1)
        read = [self.read(each) for each in term.args]
        if term.op == "add":
            return read[0] + read[1]
        if term.op == "sub":
            return read[0] - read[1]
        if term.op == "neg":
            return -read[0]
        if term.op == "abs":
            return Linear.of(Distance(read[0]))
        if term.op == "mul" and read[0] == Linear(read[0].constant):
            read.reverse()
        is_floor = term.op == "floordiv" or term.kwargs.get("rounding_mode") == "floor"
        factor = read[1]
        if factor != Linear(factor.constant):
            return None
        if term.op == "mul":
            return read[0] * factor.constant
        if not is_floor or factor.constant < 1:
            return None
        if read[0] == Linear(read[0].constant):
            return Linear(read[0].constant // factor.constant)
        return Linear.of(Floor(read[0], factor.constant))

    def _source(self, term: Term) -> Linear | None:
        """What the first argument is, unless an atom in it has axes that a view may move."""
        if not isinstance(term.args[0].value, Tensor) or _is_no_integer(term.args[0]):
            return None
        source = self.read(term.args[0])
        has_axes = any(
            source_term.value.dim()
            for source_term in source.terms()
            if isinstance(source_term.value, Tensor)
        )
        return None if has_axes else source

    def _reshaped(self, term: Term) -> Linear | None:
        """Axes of size 1 come and go."""
        source = self._source(term)
        before, after = (_long_axes(each.value) for each in (term.args[0], term))
        if source is None or [size for _, size in before] != [size for _, size in after]:
            return None
        moves = {old: new for (old, _), (new, _) in zip(before, after, strict=True)}
        return _moved(source, moves)

    def _indexed(self, term: Term) -> Linear | None:
        source, index = self._source(term), term.args[1]
        table = term.args[0].unexpanded
        if table in self.positions and source is None:
            return self._position(table, index)
        if source is None:
            return None
        indices = list(index) if isinstance(index, (tuple, list)) else [index]
        if all(isinstance(each, Term) and isinstance(each.value, Tensor) for each in indices):
            return self._looked_up(source, term.args[0].value.dim(), indices)
        return _sliced(source, term, indices)

    def _position(self, positions: Term, index: Any) -> Linear | None:
        """`positions[b, place]`: the place, and where its sequence starts."""
        if not self.is_place(index, -2) and not self.is_place(index, -1):
            return None
        self.compared_positions.add(positions)
        return self.read(index[1]) + Linear.of(Start(Linear.of(positions)))

    def is_place(self, index: Any, axis: int) -> bool:
        """Whether `table[index]` has the entry of each place along an axis: `[b, place]`."""
        is_pair = isinstance(index, (tuple, list)) and len(index) == 2
        return is_pair and all(
            isinstance(each, Term) and self.read(each) == self._place(place)
            for each, place in zip(index, (-4, axis), strict=True)
        )

    def _place(self, axis: int) -> Linear:
        """The index along an axis of the mask."""
        is_long = len(self._shape) >= -axis and not is_one(self._shape[axis])
        return Linear.along(axis) if is_long else Linear()

    def _looked_up(self, table: Linear, rank: int, indices: list[Term]) -> Linear | None:
        """`table[indices]`; an index below 0 would count from the end."""
        if len(indices) != rank:
            return None
        found = table
        for axis, index in zip(range(-rank, 0), indices, strict=True):
            slope = table.slope(axis)
            if slope:
                place = self.read(index)
                if place.atoms or min(place.slopes) < 0 or place.constant < 0:
                    return None
                found = found - Linear.along(axis, slope=slope) + place * slope
        return found

    def _differences(self, term: Term) -> Linear | None:
        """1 throughout, say, of what rises by 1, and by 1 from what stands before it."""
        source = self._source(term)
        before = term.kwargs.get("prepend")
        keywords = set(term.kwargs) <= {"prepend", "dim", "n"} and term.kwargs.get("n", 1) == 1
        if source is None or len(term.args) > 1 or not isinstance(before, Term) or not keywords:
            return None
        if term.kwargs.get("dim", -1) != -1 or not is_one(before.value.shape[-1]):
            return None
        step = source.without(-1) - self.read(before)
        is_even = step == Linear(step.constant) and (
            is_one(term.value.shape[-1]) or step.constant == source.slope(-1)
        )
        return step if is_even else None

    def _is_nowhere(self, term: Term) -> bool:
        """Whether it is a comparison that holds nowhere."""
        if term.op not in TURNED:
            return False
        return decide(term.op, self.read(term.args[0]) - self.read(term.args[1])) is False


def decide(op: str, difference: Linear) -> bool | None:
    """Whether `difference op 0` for all indices, which are 0 or more; None where that is open."""
    least, slopes = difference.constant, difference.slopes
    if difference.atoms:
        return None
    if not any(slopes):
        return bool(getattr(operator, op)(least, 0))
    if max(slopes) <= 0:
        return decide(TURNED[op], -difference)
    if min(slopes) < 0 or least < (op in ("gt", "ne", "le", "eq")):
        return None
    return op in ("ge", "gt", "ne")


def constant_of(term: Term) -> Linear | None:
    """That of a tensor which has one value."""
    if term.op in _FILLED:
        return Linear(_FILLED[term.op])
    value = None
    if term.op in ("tensor", "scalar_tensor"):
        value = term.args[0]
    elif term.op in ("full", "new_full", "full_like"):
        value = term.argument(2 if term.op == "new_full" else 1, "fill_value")
    return Linear(int(value)) if isinstance(value, (bool, int)) else None


def _check_integer(term: Term) -> None:
    if isinstance(term.value, Tensor):
        if term.value.dtype not in _INTEGERS:
            raise Reject(f"{term.node.name} is compared as {term.value.dtype}, not as integers")
        if term.value.dim() > AXES:
            raise Reject(f"{term.node.name} has {term.value.dim()} axes")
    elif not isinstance(term.value, (int, torch.SymInt)):
        raise Reject(f"nothing is known of {term.node.name}")


def _is_no_integer(term: Term) -> bool:
    return isinstance(term.value, Tensor) and term.value.dtype not in _INTEGERS


def _is_expanded(term: Term) -> bool:
    """Whether only axes of size 1 are repeated."""
    sizes, times = term.args[0].value.shape, term.args[1:]
    pairs = zip(reversed(sizes), reversed(times), strict=False)
    return len(times) >= len(sizes) and all(any(map(is_one, pair)) for pair in pairs)


def _rising(term: Term, axis: int) -> Linear:
    """Index along an axis; of one element that is 0."""
    return Linear() if is_one(term.value.shape[axis]) else Linear.along(axis)


def _long_axes(value: Tensor) -> list[tuple[int, str]]:
    """Axes that are not of size 1, from the right, and their sizes, which may be symbols."""
    rank = value.dim()
    return [(axis - rank, str(size)) for axis, size in enumerate(value.shape) if not is_one(size)]


def _moved(source: Linear, moves: dict[int, int]) -> Linear:
    found = Linear(source.constant, atoms=source.atoms)
    for old, new in moves.items():
        found = found + Linear.along(new, slope=source.slope(old))
    return found


def _sliced(source: Linear, term: Term, indices: list[Any]) -> Linear | None:
    """`source[indices]` with `None`, slices from a place on, and integers."""
    shape = term.args[0].value.shape
    axis, moves, found = 0, {}, source
    places: list[int | None] = []
    if Ellipsis in indices:
        place = indices.index(Ellipsis)
        missing = len(shape) - sum(each is not None for each in indices) + 1
        indices[place : place + 1] = [slice(None)] * missing
    for index in indices:
        if index is None:
            places.append(None)
            continue
        start = index if isinstance(index, int) else getattr(index, "start", 0)
        start = 0 if start is None else start
        if not isinstance(start, int) or isinstance(start, bool):
            return None
        if isinstance(index, slice) and index.step not in (None, 1):
            return None
        slope = source.slope(axis - len(shape))
        if start < 0:
            if not isinstance(shape[axis], int):
                return None
            start = max(start + shape[axis], 0)
        found = found + slope * start
        if isinstance(index, slice):
            places.append(axis)
        axis += 1
    places += range(axis, len(shape))
    for new, old in enumerate(places):
        if old is not None and not is_one(term.value.shape[new]):
            moves[old - len(shape)] = new - len(places)
    return _moved(found, moves)
