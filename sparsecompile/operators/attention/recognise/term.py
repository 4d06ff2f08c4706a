"""Terms: the nodes that make a mask, with the axes that `vmap` hides written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from sparsecompile.errors import Reject
from sparsecompile.graph.fake_calls import example
from sparsecompile.graph.mutation import writes_in_place

_ALIASES = {
    "less_equal": "le",
    "less": "lt",
    "greater_equal": "ge",
    "greater": "gt",
    "not_equal": "ne",
    "bitwise_and": "and",
    "logical_and": "and",
    "bitwise_or": "or",
    "logical_or": "or",
    "invert": "not",
    "bitwise_not": "not",
    "logical_not": "not",
    "subtract": "sub",
    "floor_divide": "floordiv",
    "absolute": "abs",
    "negative": "neg",
}
_SAME_WHEREVER = {"getitem", "index", "to", "unsqueeze", "squeeze", "view", "reshape", "expand"}
"""Operations that are the same term where their arguments are."""
_BY_PLACE = {"input", "self", "other", "mask", "condition", "tensor"}
"""What is read by its place; a call that names it is none that is known."""
MOST = 128
"""Terms of a mask: those of models have up to 60, those that depend on activations have no end."""


@dataclass(frozen=True, eq=False)
class Term:
    """A node, its operation under one name, and the terms in its arguments.

    Attributes:
        node: of the graph.
        op: `le` for `operator.le`, `torch.less_equal`, `Tensor.__le__`, ...; `placeholder`, ...; of
            what writes in place, or names its tensors, none that is known.
        args: terms and constants.
        kwargs: likewise.
        value: the fake value; of a lifted term with the axes of `vmap` in front.
        is_lifted: whether the node is one example's of a `vmap`, the term that of all.
    """

    node: Node
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any
    is_lifted: bool

    def __str__(self) -> str:
        """The node's name."""
        return self.node.name

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """However it is passed."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The operation, on other arguments."""
        if self.op == "add_batch_dim":
            return args[0].view(args[1])
        target: Any = self.node.target
        function = getattr(args[0], target) if isinstance(target, str) else target
        return function(*(args[1:] if isinstance(target, str) else args), **kwargs)

    def depends_on(self, axis: int) -> bool:
        """Whether it may differ along an axis, counted from the right: -1 is that of the keys."""
        if not isinstance(self.value, Tensor) or self.value.dim() < -axis:
            return False
        return not is_one(self.value.shape[axis])

    @property
    def unexpanded(self) -> Term:
        """What it is, with axes of size 1 where they were expanded."""
        source = self.args[0] if self.op == "expand" else self
        return self if source is self else source.unexpanded

    @property
    def is_mixed(self) -> bool:
        """Whether it may differ from query to query, and from key to key."""
        return self.depends_on(-1) and self.depends_on(-2)


class Terms:
    """The terms of a graph's nodes, made as they are asked for."""

    def __init__(self) -> None:
        self.of: dict[Node, Term] = {}
        self._alike: dict[Any, Term] = {}
        self._depth = 0
        self._count = 0

    def term(self, node: Node) -> Term:
        """That of a node.

        Raises:
            Reject: a `vmap` in it is no grid of indices, or there are more than `MOST`.
        """
        if node not in self.of:
            self._count += 1
            if self._count > MOST:
                raise Reject(f"it is made of more than {MOST} nodes, among them {node.name}")
            self.of[node] = self._make(node)
        return self.of[node]

    def _make(self, node: Node) -> Term:
        op = _operation(node)
        if op == "remove_batch_dim":
            return self._removed(node)
        args, kwargs = map_arg((node.args, node.kwargs), cast(Any, self.term))
        inputs = [self.term(source) for source in node.all_input_nodes]
        value, is_lifted = example(node), any(term.is_lifted for term in inputs)
        if op == "add_batch_dim":
            args, value, is_lifted = self._added(node, args), None, True
        term = Term(node, op, args, kwargs, value, is_lifted)
        if is_lifted:
            values = map_terms((args, kwargs), lambda each: each.value)
            term = Term(node, op, args, kwargs, term.run(*values), True)
        key = (node.target, _key(args), _key(kwargs))
        return self._alike.setdefault(key, term) if op in _SAME_WHEREVER else term

    def _added(self, node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of `add_batch_dim` as an indexing: along the level's axis."""
        indices, axis, level = args
        if axis != 0 or indices.is_lifted or indices.value.dim() != 1 or level > self._depth:
            raise Reject(f"{node.name} maps over something else than a vector of indices")
        shape = [1] * self._depth
        shape[level - 1] = -1
        return indices, tuple(shape)

    def _removed(self, node: Node) -> Term:
        """The levels are the axes, the innermost last: nothing is left to do but to broadcast."""
        source, level, _, axis = node.args
        assert isinstance(source, Node)
        assert isinstance(level, int)
        is_inner = _operation(source) == "remove_batch_dim"
        if not is_inner and not self._depth:
            self._depth = level
        if axis != 0 or level != (cast(int, source.args[1]) - 1 if is_inner else self._depth):
            raise Reject(f"{node.name} puts what a vmap maps over not in front of all axes")
        return self.term(source)


def is_one(size: Any) -> bool:
    """Whether a size is 1 for good; asks nothing of symbols."""
    return isinstance(size, int) and size == 1


def map_terms(value: Any, function: Callable[[Term], Any]) -> Any:
    """With something else in the place of every term."""
    if isinstance(value, Term):
        return function(value)
    if isinstance(value, slice):
        ends = (value.start, value.stop, value.step)
        return slice(*(map_terms(end, function) for end in ends))
    if isinstance(value, (list, tuple)):
        return type(value)(map_terms(each, function) for each in value)
    if isinstance(value, Mapping):
        return {key: map_terms(each, function) for key, each in value.items()}
    return value


def _operation(node: Node) -> str:
    if node.op not in ("call_function", "call_method"):
        return node.op
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    if writes_in_place(node) or not node.args or not _BY_PLACE.isdisjoint(node.kwargs):
        return f"{name}(...)"
    name = name.partition(".")[0].strip("_")
    return _ALIASES.get(name, name)


def _key(value: Any) -> Any:
    """Equal for equal arguments."""
    return repr(map_terms(value, lambda term: f"term {id(term)}"))
