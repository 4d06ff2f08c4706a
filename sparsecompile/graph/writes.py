"""What may write to a tensor between two nodes."""

from __future__ import annotations

from torch.fx import Node

from sparsecompile.graph.fake_calls import Use, example, storages_of, use_of


def writer_between(tensor: Node, first: Node, last: Node) -> Node | None:
    """What may write to a tensor, or to what shares its memory, between two nodes; or None."""
    own = storages_of(example(tensor))
    aliases = {node for node in tensor.graph.nodes if storages_of(example(node)) & own} | {tensor}
    node = first.next
    while node is not last:
        uses = [use_of(node, alias) for alias in aliases & set(node.all_input_nodes)]
        if Use.MAY_WRITE in uses:
            return node
        if Use.ALIASES in uses:
            aliases.add(node)
        node = node.next
    return None
