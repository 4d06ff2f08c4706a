"""Parts of a graph in which a linear is something else than it says: autocast, torch.func."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

_AUTOCAST = "autocast is on: it changes the dtype of the linear at run time"
_NO_TRANSFORM = (
    "torch.func transforms it (vmap, grad, jvp, ...): packed linears have no rules for that"
)
# Named, since torch moves them about.
_BOUNDS = {
    "_enter_autocast": ("_exit_autocast", _AUTOCAST),
    "_vmap_increment_nesting": ("_vmap_decrement_nesting", _NO_TRANSFORM),
    "_grad_increment_nesting": ("_grad_decrement_nesting", _NO_TRANSFORM),
    "_jvp_increment_nesting": ("_jvp_decrement_nesting", _NO_TRANSFORM),
}
"""By the function that such a part begins with: the one that ends it, and the reason."""


@dataclass(frozen=True)
class Scope:
    """A part of a graph, from a node to another one."""

    begin: Node
    end: Node
    reason: str


def scopes(module: GraphModule) -> tuple[Scope, ...]:
    """Those of a graph; one that nothing ends lasts to the graph's end."""
    nodes = list(module.graph.nodes)
    entered: list[Node] = []
    found = []
    for node in nodes:
        name = getattr(node.target, "__name__", "")
        if name in _BOUNDS:
            entered.append(node)
        elif entered and name == _bounds(entered[-1])[0]:
            found.append((entered.pop(), node))
    found += [(node, nodes[-1]) for node in entered]
    return tuple(Scope(b, e, _bounds(b)[1]) for b, e in found if not _is_off(b))


def ambient_scope() -> str:
    """What holds for a whole graph that is compiled now, as a reason; else empty."""
    return _AUTOCAST if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))) else ""


def _bounds(begin: Node) -> tuple[str, str]:
    return _BOUNDS[begin.target.__name__]  # type: ignore[union-attr]


def _is_off(begin: Node) -> bool:
    """Whether it switches autocast off: its arguments are device, dtype, whether it is on."""
    return begin.target.__name__ == "_enter_autocast" and not begin.args[2]  # type: ignore[union-attr]
