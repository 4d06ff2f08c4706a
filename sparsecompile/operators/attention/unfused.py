"""Attentions that no pattern takes, and what stands in the way, found in the graph alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from torch.fx import Node

from sparsecompile.graph.edit import Edit
from sparsecompile.operators.attention.spellings import CONVERTED, MATMUL, SOFTMAX

_PRODUCTS = {"matmul", "mm", "bmm", "baddbmm", "einsum"}
_JOINS = {"cat", "concat", "concatenate"}
_MOVED = {
    *("view", "reshape", "flatten", "unflatten", "as_strided", "transpose", "permute", "mT"),
    *("squeeze", "unsqueeze", "expand", "getitem", "narrow", "chunk", "split", "pad"),
    *("contiguous", "clone", "to", "type", "type_as", "float", "half", "bfloat16"),
    *("mul", "imul", "where", "masked_fill", "dropout", "nan_to_num"),
}
"""What weights are still weights behind, and scores scores."""
_SCORED = {*_MOVED, *_JOINS, "add", "iadd", "sub", "isub", "div", "truediv", "tanh", "clamp"}

Way = tuple[Node, ...]
"""From one node to another, both of them included."""


def unfused(edit: Edit) -> Iterator[tuple[Node, str]]:
    """The softmaxes of attentions that nobody has looked at, each with what stands in the way.

    That is a softmax over the last dimension, of what comes of a product of two activations, whose
    weights get into another product.
    """
    for node in edit.nodes():
        call = SOFTMAX.match(node)
        if call is None or call["dim"] not in (-1, edit.value(node).dim() - 1):
            continue
        after = list(_ways(node, _readers, {node}))
        if not after or any(way[-1].name in edit.considered for way in after):
            continue
        ways = _ways(node, _sources, {node})
        before = [way for way in ways if not _reads_weight(way[-1], edit)]
        if before:
            yield node, _obstacles(before[0], after)


def _reads_weight(product: Node, edit: Edit) -> bool:
    """Whether it is a linear, such as those of routers and classifiers."""
    return any(map(edit.weights.is_weight, product.all_input_nodes))


def _ways(node: Node, step: Callable[[Node], Iterable[Node]], seen: set[Node]) -> Iterator[Way]:
    """Ways from a node to products; each node is entered once."""
    for other in step(node):
        if other in seen:
            continue
        seen.add(other)
        if _name(other) in _PRODUCTS:
            yield node, other
        else:
            yield from ((node, *way) for way in _ways(other, step, seen))


def _readers(node: Node) -> Iterable[Node]:
    """What reads weights, of a softmax or of what moves them."""
    return node.users if _name(node) in _MOVED or SOFTMAX.match(node) else ()


def _sources(node: Node) -> Iterator[Node]:
    """What scores are made of: arguments, and what is written into them afterwards."""
    if _name(node) in _SCORED or SOFTMAX.match(node):
        yield from node.all_input_nodes
    for user in node.users:
        if user.target is operator.setitem and user.args[0] is node:
            yield from user.all_input_nodes


def _name(node: Node) -> str:
    """What is called, be it a function or a method."""
    if node.op not in ("call_function", "call_method"):
        return ""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _obstacles(before: Way, after: Sequence[Way]) -> str:
    """What patterns do not have, on the way from a softmax to its scores and to its values."""
    products = dict.fromkeys([before[-1], *(way[-1] for way in after)])
    others = [_spelled(product) for product in products if product.target not in MATMUL]
    moves = [node for way in after for node in way[1:-1]]
    found = [_joined(before)]
    if len(moves) > 1 or not all(map(CONVERTED.match, moves)):
        found.append(f"its weights go through {_listed(map(_name, moves))}")
    if others:
        found.append(f"its products are by {_listed(others)}, not matmul")
    return "; ".join(filter(None, found)) or f"{after[0][-1].name} has its weights on the right"


def _joined(way: Way) -> str:
    """What scores become a part of before their softmax."""
    for node, source in pairwise(way):
        if _name(node) in _JOINS:
            others = _listed(n.name for n in node.all_input_nodes if n is not source)
            return f"its scores are concatenated with {others} before the softmax"
        if source not in node.all_input_nodes:
            return f"its scores are written into {node.name} piece by piece"
    return ""


def _spelled(product: Node) -> str:
    """`bmm`, `einsum bcxd,bcyd->bcxy`."""
    first = product.args[0] if product.args else ""
    return f"{_name(product)} {first}" if isinstance(first, str) else _name(product)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))
