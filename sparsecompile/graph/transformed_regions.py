"""Parts of a graph in which a call is something else than it says: autocast, torch.func."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

_AUTOCAST = "autocast is on: it changes dtypes at run time"
_NO_TRANSFORM = "torch.func transforms it (vmap, grad, jvp, ...): kernels have no rules for that"
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
    nodes, found = list(module.graph.nodes), []
    entered: list[tuple[Node, str, str]] = []
    for node in nodes:
        name = getattr(node.target, "__name__", "")
        if name in _BOUNDS:
            ending, reason = _BOUNDS[name]
            # Autocast's arguments are device, dtype, and whether it is on.
            is_off = name == "_enter_autocast" and not node.args[2]
            entered.append((node, ending, "" if is_off else reason))
        elif entered and name == entered[-1][1]:
            begin, _, reason = entered.pop()
            found.append(Scope(begin, node, reason))
    found += [Scope(begin, nodes[-1], reason) for begin, _, reason in entered]
    return tuple(scope for scope in found if scope.reason)


def ambient_scope() -> str:
    """What holds for a whole graph that is compiled now, as a reason; else empty."""
    return _AUTOCAST if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))) else ""
