"""How models write attention beside torch's own function: repeated heads, and products."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Call

MATMUL = (torch.matmul, operator.matmul, "matmul")
SOFTMAX = Call((F.softmax, torch.softmax, "softmax"), ("input", "dim", "dtype", "_stacklevel"))
CONVERTED = Call(("to", "type_as", "type"), ("input", "dtype"))

_PRODUCT = Call(MATMUL, ("left", "right"))
_TRANSPOSED = Call((torch.transpose, "transpose"), ("input", "dim0", "dim1"))
_SWAPPED = Call((torch.ops.aten.mT,), ("input",))
# How Dynamo writes it before torch 2.13.
_ATTRIBUTE = Call((getattr,), ("input", "name"))
_ADDED = Call((operator.add, torch.add, operator.iadd, "add"), ("input", "other"))
_SCALED = Call((operator.mul, torch.mul, operator.imul, "mul"), ("input", "other"))
_DIVIDED = Call((operator.truediv, torch.div, "div"), ("input", "other"))
_WHERE = Call((torch.where, "where"), ("condition", "input", "other"))
_FILLED = Call((torch.masked_fill, "masked_fill"), ("input", "mask", "value"))
_NUMBERS = (torch.tensor, torch.scalar_tensor)
_TANH = Call((torch.tanh, "tanh"), ("input",))
_CONTIGUOUS = Call(("contiguous",), ("input",))
_RESHAPED = ("reshape", "view", torch.reshape)
_NEW_AXIS = (slice(None), slice(None), None, slice(None), slice(None))


@dataclass(frozen=True)
class Scores:
    """`softcap * tanh(left @ right.T * scale / softcap) + mask`."""

    q: Node
    k: Node
    mask: Node | None
    scale: float
    softcap: float


def scores_of(node: Node, before: Node, edit: Edit) -> Scores:
    """What a softmax is taken of.

    Args:
        node: the softmax's argument.
        before: where a mask is made of what fills scores, and of all that is added to them.
        edit: the graph.

    Raises:
        Reject: it is no product of queries and keys.
    """
    node, masks = _converted(node), []
    while added := _ADDED.match(node):
        node, mask = _inner(added["input"], node), added["other"]
        if not isinstance(mask, Node):
            raise Reject(f"what is added to its scores is {mask!r}, no tensor")
        masks.append(mask)
    node, filled = _unfilled(node, before, edit)
    masks += [filled] if filled is not None else []
    node, softcap = _uncapped(node)
    node, scale = _unscaled(node)
    product = _PRODUCT.match(node)
    if product is None:
        raise Reject(f"its scores are {node.name}, no product of queries and keys")
    right = _untransposed(product["right"], edit)
    mask = masks.pop() if masks else None
    while masks:
        mask = edit.call(operator.add, (mask, masks.pop()), before=before)
    return Scores(product["left"], right, mask, scale, softcap)


@dataclass(frozen=True)
class Repeated:
    """Heads of keys or values, each repeated for its group of queries.

    Attributes:
        base: `[batch, heads / groups, keys, d]`.
        groups: how often each head is there; 1 where none is repeated.
        copied: the node that copies them.
    """

    base: Node
    groups: int
    copied: Node


def unrepeated(heads: Node, edit: Edit) -> Repeated:
    """Keys or values without the repetition of heads for their groups.

    Args:
        heads: `[batch, heads, keys, d]`.
        edit: the graph.
    """
    node = _contiguous(heads)
    for repeated in (
        Call(_RESHAPED, ("input", "a", "b", "c", "d")),
        Call(_RESHAPED, ("input", "a")),
    ):
        match = repeated.match(node)
        expanded = match and Call(("expand",), ("input", *"abcde")).match(match["input"])
        if not expanded:
            continue
        inner = Call((operator.getitem,), ("input", "index")).match(expanded["input"])
        plain = inner and inner["index"] == _NEW_AXIS
        inner = inner or Call(("unsqueeze", torch.unsqueeze), ("input", "dim")).match(
            expanded["input"]
        )
        if inner and (plain or inner.captured.get("dim") == 2):
            return _checked(inner["input"], node, edit)
    interleaved = Call(
        (torch.repeat_interleave, "repeat_interleave"), ("input", "repeats", "dim")
    ).match(node)
    if interleaved and interleaved["dim"] == 1 and isinstance(interleaved["repeats"], int):
        return _checked(interleaved["input"], node, edit)
    return Repeated(heads, 1, heads)


def _checked(base: Node, repeated: Node, edit: Edit) -> Repeated:
    """The base of a repetition, if all but the number of heads is as it was."""
    before, after = edit.value(base), edit.value(repeated)
    same = before.dim() == after.dim() == 4 and all(
        edit.surely(before.shape[i] == after.shape[i]) for i in (0, 2, 3)
    )
    heads = before.shape[1] if same else 0
    if not isinstance(heads, int) or not heads or after.shape[1] % heads:
        return Repeated(repeated, 1, repeated)
    return Repeated(base, after.shape[1] // heads, repeated)


def _contiguous(node: Node) -> Node:
    """What a copy is made of: kernels read tensors of any strides."""
    match = _CONTIGUOUS.match(node)
    return match["input"] if match else node


def _converted(node: Node) -> Node:
    """Without a conversion to a wider type, which changes no value."""
    match = CONVERTED.match(node)
    return _inner(match["input"], node) if match and match["dtype"] == torch.float32 else node


def _inner(node: Any, user: Node) -> Node:
    """A node that only the user reads.

    Raises:
        Reject: others do, or it is no node.
    """
    if not isinstance(node, Node):
        raise Reject(f"{user.name} is of {node!r}, no product of queries and keys")
    if len(node.users) > 1:
        others = ", ".join(other.name for other in node.users if other is not user)
        raise Reject(f"{node.name} is read by {others}, too")
    return node


def _unfilled(node: Node, before: Node, edit: Edit) -> tuple[Node, Node | None]:
    """Scores before some are overwritten, and what adding instead does the same.

    That is `where(mask, 0, least)`: a sum of the least number and a score is that number.
    """
    if match := _WHERE.match(node):
        condition, scores, fill = (match[name] for name in ("condition", "input", "other"))
        parts = (condition, 0.0, fill)
    elif match := _FILLED.match(node):
        condition, scores, fill = (match[name] for name in ("mask", "input", "value"))
        parts = (condition, fill, 0.0)
    else:
        return node, None
    number = fill
    if isinstance(fill, Node) and fill.target in _NUMBERS:
        number = fill.args[0]
    dtype = edit.value(node).dtype
    if not isinstance(number, float) or number > torch.finfo(dtype).min:
        raise Reject(f"masked scores are {number}, which is not the least {dtype}")
    return _inner(scores, node), edit.call(torch.where, parts, before=before)


def _uncapped(node: Node) -> tuple[Node, float]:
    """Without `cap * tanh(... / cap)`, and the cap."""
    scaled = _SCALED.match(node)
    tanh = scaled and _TANH.match(scaled["input"])
    divided = tanh and _DIVIDED.match(tanh["input"])
    if not scaled or not tanh or not divided:
        return node, 0.0
    cap = divided["other"]
    if not isinstance(cap, float | int) or cap != scaled["other"] or cap <= 0:
        raise Reject(f"scores are divided by {cap} and multiplied by {scaled['other']}: no cap")
    _inner(tanh["input"], _inner(scaled["input"], node))
    return _inner(divided["input"], tanh["input"]), float(cap)


def _unscaled(node: Node) -> tuple[Node, float]:
    """Without a constant factor, and the factor."""
    scale = 1.0
    for pattern, power in ((_SCALED, 1), (_DIVIDED, -1)):
        match = pattern.match(node)
        factor = match["other"] if match else None
        if match and isinstance(factor, float | int) and factor and math.isfinite(factor):
            node, scale = _inner(match["input"], node), scale * float(factor) ** power
    return node, scale


def _untransposed(node: Any, edit: Edit) -> Node:
    """The keys `[batch, heads, keys, d]` of which a product reads the transpose."""
    match = _TRANSPOSED.match(node)
    if match and {match["dim0"], match["dim1"]} in ({2, 3}, {-1, -2}):
        return match["input"]  # type: ignore[no-any-return]
    match = _ATTRIBUTE.match(node)
    match = match if match and match["name"] == "mT" else _SWAPPED.match(node)
    if match:
        return match["input"]  # type: ignore[no-any-return]
    if isinstance(node, Node) and edit.value(node).dim() == 4:
        return edit.call("transpose", (node, 2, 3), before=node.next)
    raise Reject("its keys are no tensor of four dimensions")
