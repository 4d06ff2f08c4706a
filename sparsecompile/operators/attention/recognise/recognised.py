"""Recognised: a mask whose conditions are known, to be computed from the graph's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.graph.edit import Edit
from sparsecompile.operators.attention.recognise.conditions import ALWAYS, Conditions
from sparsecompile.operators.attention.recognise.ends import Ends
from sparsecompile.operators.attention.recognise.linear import Linear
from sparsecompile.operators.attention.recognise.term import Term, is_one, map_terms
from sparsecompile.operators.attention.recognise.text import text_of
from sparsecompile.operators.attention.recognise.vectors import Call, Vectors


@dataclass(frozen=True)
class Recognised:
    """A mask as conditions.

    Attributes:
        mask: the node.
        conditions: under which a place is kept.
        fill: what is added to the scores of other places, None of a mask of booleans. Where no
            place of a row is kept, what is added to all changes nothing: then all keys count.
        last: the last node that the mask needs; what is emitted comes after it.
    """

    mask: Node
    conditions: Conditions
    fill: float | None
    last: Node = field(compare=False)

    @property
    def text(self) -> str:
        """Such as `causal & window(256) & padding`."""
        return text_of(self.conditions, one_query=is_one(self._size(-2)))

    @property
    def is_full(self) -> bool:
        """Whether every place is kept."""
        return self.conditions == ALWAYS

    @property
    def may_be_empty(self) -> bool:
        """Whether there may be queries of which no key counts, whatever the ends are."""
        return bool(self.conditions.keys or self.conditions.rows or self.conditions.same)

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The nodes whose values the ends are computed from."""
        found: dict[Node, None] = {}

        def place(term: Term) -> None:
            if term.is_lifted:
                map_terms((term.args, term.kwargs), place)
            else:
                found[term.node] = None

        for term in self._terms:
            place(term)
        return tuple(found)

    def evaluate(self, values: Mapping[Node, Any], q: int, kv: int) -> Ends[Tensor]:
        """The ends for values of the `leaves`.

        Args:
            values: tensors and integers.
            q: queries of the mask; 1 where it has one row for all.
            kv: keys, likewise.
        """
        return self._ends(_run, values.__getitem__, q, kv)

    def emit(self, edit: Edit) -> Ends[Node]:
        """Nodes that compute the ends, right behind the mask.

        Not further on, since what a mask was made of may be written to once it is made, as the
        position of a static cache is.
        """
        # An insertion before the next node, so that the order of calls is theirs.
        call = partial(_insert, edit, self.last.next)
        # Positions are made of no tensor that would be fake already.
        with self.mask.meta["example_value"].fake_mode:
            sizes = (
                size if isinstance(size, int) else call("size", self.mask, axis)
                for axis, size in ((-2, self._size(-2)), (-1, self._size(-1)))
            )
            return self._ends(call, lambda node: node, *sizes)

    def _size(self, axis: int) -> Any:
        shape = self.mask.meta["example_value"].shape
        return shape[axis] if len(shape) >= -axis else 1

    @property
    def _terms(self) -> list[Term]:
        """Those in the conditions, which nothing is known of."""
        known = self.conditions
        linears = [*known.lows, *known.highs, *(side for pair in known.same for side in pair)]
        literals = [term for term, _ in (*known.keys, *known.rows)]
        return [*literals, *(term for linear in linears for term in linear.terms())]

    def _ends(self, call: Call, leaf: Callable[[Node], Any], q: Any, kv: Any) -> Ends[Any]:
        known = self.conditions
        vectors = Vectors(call, leaf, q, kv, self.mask.meta["example_value"].device)
        low = reduce(partial(call, torch.maximum), map(vectors.end, known.lows or [Linear()]))
        # Symbolic sizes are nodes, which no Linear has.
        highs = map(vectors.end, known.highs) if known.highs else [vectors.by_query(kv)]
        high = reduce(partial(call, torch.minimum), highs)
        for each in known.rows:
            high = call(torch.mul, high, vectors.of_queries(each))
        keep = [vectors.of_keys(each) for each in known.keys]
        ids = [
            (call("flatten", vectors.by_query(vectors.rows(query)), 0, 1), vectors.by_key(key))
            for query, key in known.same
        ]
        return Ends(
            low,
            high,
            reduce(partial(call, torch.logical_and), keep) if keep else None,
            *(ids[0] if ids else (None, None)),
        )


def _insert(edit: Edit, before: Node, function: Any, *args: Any) -> Node:
    return edit.call(function, args, before=before)


def _run(function: Any, *args: Any) -> Any:
    if isinstance(function, str):
        return getattr(args[0], function)(*args[1:])
    return function(*args)
