"""Held against the graph: a mask is what it was read as, for drawn values of what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.operators.attention.recognise.ends import Ends
from sparsecompile.operators.attention.recognise.recognised import Recognised
from sparsecompile.operators.attention.recognise.term import Term, Terms, map_terms

_POINTWISE = {
    *("le", "lt", "ge", "gt", "eq", "ne", "add", "sub", "mul", "abs", "neg", "floordiv", "div"),
    *("and", "or", "not", "to", "bool", "where", "contiguous", "clone", "detach"),
}
_COMPUTED = _POINTWISE | {
    *("arange", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like"),
    *("ones_like", "tensor", "getitem", "index", "expand", "unsqueeze", "squeeze", "view"),
    *("reshape", "repeat", "diff", "cumsum", "tril", "triu", "masked_fill"),
    *("long", "int", "float", "type"),
}
_ROWS = 64
"""Rows of a mask that are computed: more take as long as the mask itself does."""
_DRAWS = ((0, 2), (-3, 9), (0, 40))
"""Ranges of drawn integers: ids are equal now and then, lengths lie inside and outside."""
_CANNOT_RUN = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)


def verify(recognised: Recognised, terms: Terms) -> None:
    """Return if a mask is what it was read as.

    Sizes that are symbols get other values with every draw; those that are known stay.

    Raises:
        Reject: a place differs, or it cannot be computed.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.device("cpu"):
        for number, values in enumerate(_DRAWS):
            _verify_once(recognised, terms, _Draw(number, values, generator))


def _verify_once(recognised: Recognised, terms: Terms, draw: _Draw) -> None:
    mask = terms.term(recognised.mask)
    name = recognised.mask.name
    shape = (1, 1, *mask.value.shape)[-2:]
    try:
        q, kv = map(draw.size, shape)
        rows = _some(q, draw.generator)
        computed = _Computed(draw, rows)
        found = computed.rows_of(mask)
        values = {leaf: computed.whole(terms.term(leaf)) for leaf in recognised.leaves}
        ends = recognised.evaluate(values, q, kv)
        read = _kept(ends, rows, kv)
        if recognised.fill is not None:
            read = torch.where(read, 0.0, recognised.fill).to(found.dtype)
        read, found = torch.broadcast_tensors(read, found)
    except _CANNOT_RUN as error:
        raise Reject(f"{name} cannot be computed on its own to hold it against: {error}") from error
    if not torch.equal(read, found):
        b, h, row, key = (read != found).nonzero()[0].tolist()
        raise Reject(
            f"{name} was read as {recognised.text}, but of {q} queries and {kv} keys it is "
            f"{found[b, h, row, key].item()} at query {int(rows[row])}, key {key} of entry {b}"
        )


def _kept(ends: Ends[Tensor], rows: Tensor, kv: int) -> Tensor:
    """The mask of some rows: `[batch, heads, rows, kv]` bool."""
    keys = torch.arange(kv)
    low, high = ends.low[..., rows, None], ends.high[..., rows, None]
    kept = (low <= keys) & (keys < high)
    if ends.keep is not None:
        kept = kept & ends.keep[:, None, None]
    if ends.query_ids is not None and ends.key_ids is not None:
        kept = kept & (ends.query_ids[:, None, rows, None] == ends.key_ids[:, None, None])
    return kept


def _some(q: int, generator: torch.Generator) -> Tensor:
    """All rows, or the first, the last and others."""
    if q <= _ROWS:
        return torch.arange(q)
    drawn = torch.randperm(q, generator=generator)[: _ROWS // 2]
    ends = torch.arange(_ROWS // 4)
    chosen: Tensor = torch.cat((ends, drawn, q - 1 - ends)).unique()
    return chosen


class _Draw:
    """Values of nodes that nothing is computed of, and of symbols."""

    def __init__(self, number: int, values: tuple[int, int], generator: torch.Generator) -> None:
        self.generator = generator
        self._number = number
        self._range = values
        self._values: dict[Node, Any] = {}
        self._symbols: dict[Any, int] = {}

    def size(self, size: Any) -> int:
        """A size, with its symbols replaced."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        for symbol in sorted(expression.free_symbols, key=str):
            # Far enough from each other for differences to be sizes, too.
            value = (5, 70, 130)[self._number] + 3 * len(self._symbols)
            self._symbols.setdefault(symbol, value)
        return int(expression.subs(self._symbols))

    def value(self, node: Node) -> Any:
        """Drawn once."""
        if node not in self._values:
            value = node.meta["example_value"]
            self._values[node] = (
                self._tensor(value) if isinstance(value, Tensor) else self.size(value)
            )
        return self._values[node]

    def _tensor(self, fake: Tensor) -> Tensor:
        shape = [self.size(size) for size in fake.shape]
        low, high = (0, 2) if fake.dtype == torch.bool else self._range
        return torch.randint(low, high, shape, generator=self.generator).to(fake.dtype)


class _Computed:
    """Computes terms: vectors as they are, what is mixed for some rows alone.

    What masks are not made of is drawn, and not computed of what it comes from.
    """

    def __init__(self, draw: _Draw, rows: Tensor) -> None:
        self._draw = draw
        self._rows = rows
        self._values: dict[Term, Any] = {}

    def rows_of(self, term: Any) -> Any:
        """Of some rows; anything else than terms as it is."""
        if not isinstance(term, Term):
            return term
        if not term.is_mixed:
            return self._narrow(self.whole(term))
        if term.op == "expand" and term.args[0].is_mixed:
            return self.rows_of(term.args[0])
        if term.op in _POINTWISE:
            return self._run(term, self.rows_of)
        return self._narrow(self.whole(term))

    def whole(self, term: Term) -> Any:
        """Its value."""
        if term not in self._values:
            self._values[term] = self._new(term)
        return self._values[term]

    def _new(self, term: Term) -> Any:
        is_tensor = isinstance(term.value, Tensor)
        if not is_tensor or (term.op not in _COMPUTED and not term.is_lifted):
            return self._draw.value(term.node)
        try:
            return self._run(term, self.whole)
        except IndexError:
            # A place that was drawn may lie outside of a table; what is there may be anything.
            return self._draw.value(term.node)

    def _run(self, term: Term, compute: Callable[[Term], Any]) -> Any:
        args, kwargs = map_terms((term.args, term.kwargs), compute)
        kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        args = tuple(
            torch.device("cpu") if isinstance(each, torch.device) else each for each in args
        )
        return term.run(args, kwargs)

    def _narrow(self, value: Any) -> Any:
        has_rows = isinstance(value, Tensor) and value.dim() > 1 and value.shape[-2] != 1
        return value[..., self._rows, :] if has_rows else value
