"""Chains of linears become regions: one call, one parallel region for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from sparsecompile.errors import BuildError, CacheError, Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.kernels.template import Source
from sparsecompile.lowering.chain import Chain, LinearCall

MOST_STAGES = 16


def join_regions(edit: Edit, calls: Sequence[LinearCall]) -> dict[str, Source]:
    """Put regions in place of chains of linears that are as long as they can be.

    A chain goes on where all that a linear reads of it comes row by row from linears before it
    (norms, gates, residuals), few rows are multiplied, and nothing in between writes in place.

    Args:
        edit: the graph, with calls of ops.
        calls: its linears, in order.

    Returns:
        What was built, by name.
    """
    left, sources = list(calls), dict[str, Source]()
    while left:
        best, taken = None, 1
        chain = Chain(edit)
        try:
            for count, call in enumerate(left[:MOST_STAGES], 1):
                chain.take(call)
                if count > 1 and chain.can_end():
                    best, taken = chain.copy(), count
        except Reject as reject:
            if best is None:
                edit.rejected("join_regions", left[0].node, reject.reason)
        if best is not None:
            try:
                source = best.close()
                sources[source.name] = source
            except (Reject, BuildError, CacheError) as error:
                # One by one they run all the same.
                edit.rejected("join_regions", best.calls[0].node, str(error))
        left = left[taken:]
    return sources


def is_region(node: Node) -> bool:
    """Whether a node of a graph is one."""
    return node.target is torch.ops.sparsecompile.region.default
