"""From packed linears back to what the model computes."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.graph.edit import Edit, origins
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.epilogue import STEPS


def live_parts(match: Match) -> tuple[Node, ...]:
    """The model's own dense weights that a node does the work of; none where it needs a copy."""
    weight: Node = match["weight"]
    parts: Any = weight.args[0] if weight.target is torch.cat else (weight,)
    return tuple(parts) if all(map(_is_view, parts)) else ()


def _is_view(node: Node) -> bool:
    """Whether a weight is a parameter, transposed at most."""
    return node.op == "placeholder" or (
        node.target is torch.t and _is_view(node.all_input_nodes[0])
    )


def restore(match: Match, weights: tuple[Node, ...], copy: DenseCopy | None, edit: Edit) -> None:
    """`packed_linear(...) -> linear(...)` and the epilogue's steps; merged linears come apart.

    Args:
        match: the node.
        weights: the dense weights, one for each linear that was merged, or one for all.
        copy: what the one weight is kept as.
        edit: the graph.
    """
    node, x = match.node, match["x"]
    biases: tuple[Node | None, ...] = (match["bias"],)
    if len(weights) > 1:
        biases = (
            tuple(match["bias"].args[0]) if match["bias"] is not None else (None,) * len(weights)
        )
    if copy is not None:
        args = (x, *weights, *biases, edit.value(match["weight"]).shape[0])
        linears = [edit.call(copy.op, args, before=node, origins=origins(node))]
    else:
        linears = [
            edit.call(F.linear, (x, weight, bias), before=node, origins=origins(node))
            for weight, bias in zip(weights, biases, strict=True)
        ]
    if len(linears) > 1 and _give_parts(node, linears, edit):
        return
    new = linears[0] if len(linears) == 1 else edit.call(torch.cat, (linears, -1), before=node)
    operands = iter(match["operands"])
    for name in match["epilogue"]:
        step = STEPS[name]
        args = (new, next(operands)) if step.has_operand else (new,)
        new = edit.call(step.apply, args, before=node)
    edit.replace(node, new)


def _give_parts(node: Node, linears: list[Node], edit: Edit) -> bool:
    """Where a merged node is only split again: hand out the linears. Whether it was so."""
    if len(node.users) != 1:
        return False
    (split,) = node.users
    if split.target is not torch.split:
        return False
    parts = list(split.users)
    if any(part.target is not operator.getitem for part in parts):
        return False
    for part in parts:
        edit.replace(part, linears[part.args[1]])  # type: ignore[index]
    edit.erase(split)
    edit.erase(node)
    return True
