"""A copy of a graph for passes to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _make_graph_module
from torch.fx.node import map_arg


def copy_graph(module: GraphModule) -> GraphModule:
    """A copy to edit: Dynamo reads its own graph again after the backend returns.

    Under Dynamo it generates its code when that is needed, not after every change.
    """
    graph = Graph(tracer_cls=module.graph._tracer_cls)
    nodes: dict[Node, Node] = {}
    graph.graph_copy(module.graph, nodes)
    original = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    output = graph.output(map_arg(original.args[0], nodes.__getitem__), original.type)
    output.meta.update(original.meta)
    for old, new in nodes.items():
        # It refers to the model's tensor, which torch then refuses to swap; of use to Dynamo alone.
        new.meta.pop("grapharg", None)
        if hasattr(old, "_dynamo_source"):
            new._dynamo_source = old._dynamo_source
    copy = _make_graph_module(module, graph)
    copy.meta = dict(module.meta)
    for name in ("_param_name_to_source", "_source_to_user_stacks", "shape_env"):
        if hasattr(module, name):
            setattr(copy, name, getattr(module, name))
    return copy


def function_of(module: GraphModule) -> Callable[..., Any]:
    """A graph as a function, to run or to give to `torch.compile` later.

    It refers to no tensor of the model, as what Dynamo notes of a graph's nodes does. Dynamo would
    run a graph as it is, and counts by its code how often a function is compiled.
    """
    graph = Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        node.meta = {}
    copy = _make_graph_module(module, graph)

    def run(*args: Any) -> Any:
        return copy(*args)

    run.__code__ = run.__code__.replace()
    return run
