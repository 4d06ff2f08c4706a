"""Recognise the mask of an attention: read it, then hold what was read against the graph."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from sparsecompile.errors import Reject
from sparsecompile.graph.fake_calls import example
from sparsecompile.graph.mutation import writes_in_place
from sparsecompile.operators.attention.recognise.booleans import Booleans
from sparsecompile.operators.attention.recognise.recognised import Recognised
from sparsecompile.operators.attention.recognise.term import Terms
from sparsecompile.operators.attention.recognise.verify import verify


def recognise(mask: Node) -> Recognised:
    """What a mask keeps, as conditions.

    Args:
        mask: the node of a mask `[batch, heads, q, kv]`, or what broadcasts to it: of booleans, or
            added to scores.

    Raises:
        Reject: it is not understood; the reason names the node.
    """
    if not isinstance(example(mask), Tensor):
        raise Reject(f"nothing is known of the shape and dtype of {mask.name}")
    terms = Terms()
    term = terms.term(mask)
    conditions, fill = Booleans(terms.of.values(), term.value.shape).mask(term)
    q, kv = (1, 1, *term.value.shape)[-2:]
    if len(conditions.same) > 1:
        raise Reject(f"{mask.name} compares ids of {len(conditions.same)} kinds")
    recognised = Recognised(mask, conditions.within(q, kv), fill, _last(mask))
    verify(recognised, terms)
    _check_unwritten(mask, terms)
    return recognised


def _last(mask: Node) -> Node:
    """The mask, or what leaves its `vmap`s behind it."""
    last = mask
    while "_vmap_decrement_nesting" in str(last.next.target):
        last = last.next
    return last


def _check_unwritten(mask: Node, terms: Terms) -> None:
    """Return if nothing writes into what the mask is made of between reading and making it.

    Raises:
        Reject: something may.
    """
    made = {node for node, term in terms.of.items() if node.op != "placeholder"}
    mixed = [term.node for term in terms.of.values() if term.is_mixed]
    read: set[int] = set()
    for node in mask.graph.nodes:
        if node is mask:
            read = _memory([mask, *mixed])
        elif node in made:
            read |= _memory([node, *node.all_input_nodes])
        if writes_in_place(node) and _memory(node.all_input_nodes) & read:
            raise Reject(f"{node.name} writes into what {mask.name} is made of")


def _memory(nodes: Iterable[Node]) -> set[int]:
    return {
        _unmapped(leaf).untyped_storage()._cdata
        for node in nodes
        for leaf in tree_leaves(example(node))
        if isinstance(leaf, Tensor)
    }


def _unmapped(tensor: Tensor) -> Tensor:
    """What a `vmap` maps over."""
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
