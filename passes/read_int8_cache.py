"""`read_int8_cache`: attention reads keys and values as the int8 that a cache holds."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node

from sparsecompile import Call, Edit, Match, Pass, Phase, Reject
from sparsecompile.graph.fake_calls import example
from sparsecompile.graph.writes import writer_between
from sparsecompile.masks.choice import Choice
from sparsecompile.operators.attention.asked import named
from sparsecompile.operators.attention.node import ATTENTION
from sparsecompile.operators.attention.operator import spec_of

_CONVERTED = (
    Call(("to", "type_as", "type"), ("input", "dtype")),
    Call(("float", "bfloat16", "half", "double", "contiguous"), ("input",)),
)
_INDEXED = Call((operator.getitem,), ("input", "index"))
_PRODUCT = Call((operator.mul, torch.mul, "mul"), ("stored", "scale"), commutative=True)
_ELEMENTWISE = (
    *(operator.mul, torch.mul, "mul", operator.sub, torch.sub, "sub", operator.add, "add"),
    *("view", "reshape", torch.reshape, "flatten", "unflatten", "expand", operator.getitem),
    *(torch.cat, operator.truediv),
)
_ALL = (slice(None), slice(None))
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Dequantized:
    """Keys or values that are `stored * scale`.

    Attributes:
        stored: int8, of the shape of the product.
        scale: `[batch or 1, heads or 1, keys or 1, 1]`, or with fewer dimensions.
        kept: which of the keys the attention is given.
        nodes: all that lie between these and the attention, from the last to the first.
    """

    stored: Node
    scale: Node
    kept: slice
    nodes: tuple[Node, ...]

    def emit(self, before: Node, edit: Edit) -> tuple[Node, Node]:
        """What is stored of the kept keys, and its scales, of four dimensions."""
        parts = [self.stored, self.scale]
        missing = 4 - edit.value(self.scale).dim()
        if missing:
            index = (*(None,) * missing, ...)
            parts[1] = edit.call(operator.getitem, (self.scale, index), before=before)
        if self.kept != slice(None):
            # A scale of all keys is that of the kept ones, too.
            for i in (0, 1) if edit.value(parts[1]).shape[2] != 1 else (0,):
                args = (parts[i], (*_ALL, self.kept))
                parts[i] = edit.call(operator.getitem, args, before=before)
        return parts[0], parts[1]


@dataclass(frozen=True)
class ReadInt8Cache(Pass):
    """`attention(q, k8 * s, v8 * t, ...) -> attention(q, k8, v8, ..., k_scale=s, v_scale=t)`.

    For int8 with a scale for each row at most, cast and multiplied in any order; of such a product
    the attention may be given some of the keys.
    """

    name: ClassVar[str] = "read_int8_cache"
    phase: ClassVar[Phase] = Phase.PACK

    def run(self, edit: Edit) -> None:
        """Attention by attention; those whose keys and values are of no 8 bits are left out."""
        for node in edit.nodes():
            match = ATTENTION.match(node)
            if match is None or not any(_is_of_bytes(match[name]) for name in "kv"):
                continue
            try:
                self._read(match, edit)
            except Reject as reject:
                edit.rejected(self.name, node, f"its cache is dequantized first: {reject.reason}")

    def _read(self, match: Match, edit: Edit) -> None:
        if match["pattern"] and isinstance(named(match["pattern"]), Choice):
            raise Reject(f"{match['pattern']} looks at what the keys hold")
        keys, values = (_dequantized(match[name], match.node, edit) for name in "kv")
        stored = (match["q"], keys.stored, values.stored)
        edit.device.check(spec_of(*map(edit.value, stored), softcap=match["softcap"] != 0))
        (k, k_scale), (v, v_scale) = (of.emit(match.node, edit) for of in (keys, values))
        q, _, _, *others = (match[name] for name in ATTENTION.parameters[:8])
        match.node.args = (q, k, v, *others, match["pattern"] or "", k_scale, v_scale)
        edit.replaced(self.name, match.node)
        edit.discard((keys.nodes[0], values.nodes[0]))


def _dequantized(node: Node, reader: Node, edit: Edit) -> Dequantized:
    """What keys or values are the product of.

    Raises:
        Reject: of nothing that kernels read, or it may be written to in between.
    """
    unscaled, nodes = _unconverted(node, edit)
    kept, indexed = slice(None), _INDEXED.match(unscaled)
    if indexed and _of_keys(indexed["index"]):
        kept, nodes = indexed["index"][2], (*nodes, unscaled)
        unscaled, casts = _unconverted(indexed["input"], edit)
        nodes += casts
    for product in _PRODUCT.matches(unscaled):
        stored, scale = product["stored"], product["scale"]
        if not isinstance(stored, Node) or not isinstance(scale, Node):
            continue
        stored, casts = _unconverted(stored, edit)
        if edit.value(stored).dtype != torch.int8:
            continue
        (size, of, rows) = (edit.value(n).shape for n in (stored, scale, product.node))
        if len(size) != 4 or not all(edit.surely(a == b) for a, b in zip(size, rows, strict=True)):
            raise Reject(f"{stored.name} {tuple(size)} has not the shape of {unscaled.name}")
        if of and not edit.surely(of[-1] == 1):
            raise Reject(f"{scale.name} {tuple(of)} has more than one scale for a row")
        if edit.value(scale).dtype not in _FLOATS[1:]:
            raise Reject(f"{scale.name} is {edit.value(scale).dtype}")
        found = Dequantized(stored, scale, kept, (*nodes, product.node, *casts))
        first = found.nodes[-1]
        for made, since in ((stored, first), (scale, product.node), *((n, n) for n in found.nodes)):
            writer = writer_between(made, since, reader)
            if writer is not None:
                raise Reject(f"{writer.name} may write to {made.name} before it is read")
        return found
    raise Reject(f"{unscaled.name} is no product of int8 numbers and scales")


def _of_keys(index: object) -> bool:
    """Whether an index takes some of the keys of `[batch, heads, keys, d]`."""
    if not isinstance(index, tuple) or len(index) not in (3, 4):
        return False
    others = (*index[:2], *index[3:])
    return isinstance(index[2], slice) and all(i == slice(None) for i in others)


def _unconverted(node: Node, edit: Edit) -> tuple[Node, tuple[Node, ...]]:
    """Without conversions to floating point, and these from the last to the first."""
    nodes: tuple[Node, ...] = ()
    while edit.value(node).dtype in _FLOATS:
        match = next((m for call in _CONVERTED if (m := call.match(node))), None)
        if match is None:
            break
        nodes, node = (*nodes, node), match["input"]
    return node, nodes


def _is_of_bytes(node: Node) -> bool:
    """Whether numbers of 8 bits are what a tensor is computed of, one by one."""
    found = [node]
    for each in found:
        value = example(each)
        if not isinstance(value, torch.Tensor):
            continue
        if value.dtype.itemsize == 1 and value.dtype != torch.bool:
            return True
        if each.target in _ELEMENTWISE or any(call.match(each) for call in _CONVERTED):
            found += [source for source in each.all_input_nodes if source not in found]
    return False


COMPONENTS = (ReadInt8Cache(),)
