"""Vectors: Linears and literals as calls on the values of terms."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.fake_calls import example
from sparsecompile.operators.attention.recognise.conditions import Literal
from sparsecompile.operators.attention.recognise.linear import Floor, Linear
from sparsecompile.operators.attention.recognise.term import Term, map_terms

Call = Callable[..., Any]
"""Of a function, or the name of a method, and its arguments: what it returns, or its node."""


class Vectors:
    """Computes what depends on queries alone, or on keys alone.

    Args:
        call: calls a function now, or inserts a node that does.
        leaf: the value of a node, or the node itself.
        q: number of queries, or its node.
        kv: number of keys, or its node.
        device: of the mask.
    """

    def __init__(
        self, call: Call, leaf: Callable[[Node], Any], q: Any, kv: Any, device: torch.device
    ) -> None:
        self._call = call
        self._leaf = leaf
        self._sizes = {-1: kv, -2: q}
        self._device = device
        self._placed: dict[Term, Any] = {}

    def end(self, linear: Linear) -> Any:
        """`[batch or 1, heads or 1, q]` int32."""
        return self._call("to", self.by_query(self.rows(linear)), torch.int32)

    def rows(self, linear: Linear) -> Any:
        """Of queries: an integer, or up to `[batch, heads, q]`."""
        return self._total(linear, -2)

    def by_query(self, value: Any) -> Any:
        """As `[batch or 1, heads or 1, q]`."""
        shape = (1, 1, self._sizes[-2])
        if not isinstance(_known(value), Tensor):
            return self._call("to", self._call(torch.full, shape, value), torch.int32)
        value = self._with_rank(value, 3)
        return self._call("expand", value, -1, -1, self._sizes[-2])

    def by_key(self, linear: Linear) -> Any:
        """`[batch or 1, kv]`."""
        return self._flat(self._total(linear, -1))

    def of_keys(self, literal: Literal) -> Any:
        """`[batch or 1, kv]` bool."""
        return self._flat(self._literal(literal))

    def of_queries(self, literal: Literal) -> Any:
        """Up to `[batch, heads, q]` bool."""
        return self._row(self._literal(literal))

    def _literal(self, literal: Literal) -> Any:
        term, wanted = literal
        value = self._place(term)
        return value if wanted else self._call(torch.logical_not, value)

    def _total(self, linear: Linear, axis: int) -> Any:
        """The sum; of queries without the axis of keys."""
        if any(linear.slopes[:2]):
            raise Reject("an end of the mask rises from entry to entry, or from head to head")
        parts = [] if linear.atoms or any(linear.slopes) else [linear.constant]
        slope = linear.slope(axis)
        if slope:
            positions = self._call(torch.arange, self._sizes[axis])
            if self._device.type != "cpu":
                positions = self._call("to", positions, self._device)
            parts.append(self._times(positions, slope))
        for atom, factor in linear.atoms:
            if isinstance(atom, Term):
                value = self._place(atom)
                value = self._row(value) if axis == -2 else value
            else:
                value = self._total(atom.inner, axis)
                value = (
                    self._call(operator.floordiv, value, atom.step)
                    if isinstance(atom, Floor)
                    else self._call(operator.abs, value)
                )
            parts.append(self._times(value, factor))
        total = reduce(lambda a, b: self._call(operator.add, a, b), parts)
        if linear.constant and total is not linear.constant:
            total = self._call(operator.add, total, linear.constant)
        return total

    def _times(self, value: Any, factor: int) -> Any:
        return value if factor == 1 else self._call(operator.mul, value, factor)

    def _row(self, value: Any) -> Any:
        known = _known(value)
        return (
            self._call("squeeze", value, -1) if isinstance(known, Tensor) and known.dim() else value
        )

    def _flat(self, value: Any) -> Any:
        value = self._with_rank(value, 2)
        rank = _known(value).dim()
        return value if rank == 2 else self._call("flatten", value, 0, rank - 2)

    def _with_rank(self, value: Any, rank: int) -> Any:
        for _ in range(rank - _known(value).dim()):
            value = self._call("unsqueeze", value, 0)
        return value

    def _place(self, term: Term) -> Any:
        """The node's value; a lifted term is computed anew, outside of its `vmap`."""
        if not term.is_lifted:
            return self._leaf(term.node)
        if term not in self._placed:
            if term.kwargs:
                raise Reject(f"{term.node.name} has keywords inside of a vmap")
            target = "view" if term.op == "add_batch_dim" else term.node.target
            self._placed[term] = self._call(target, *map_terms(term.args, self._place))
        return self._placed[term]


def _known(value: Any) -> Any:
    """What is known of a value: its fake one where it is a node."""
    return example(value) if isinstance(value, Node) else value
