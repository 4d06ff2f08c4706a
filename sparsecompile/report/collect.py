"""From what happened to a graph to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch.fx import Node

from sparsecompile.errors import Reject
from sparsecompile.graph.considered import Considered
from sparsecompile.graph.edit import Edit, origins
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.lowering.problems import operator_nodes
from sparsecompile.lowering.regions import is_region
from sparsecompile.operators.operator import Operator
from sparsecompile.report.facts import GraphReport, KernelChoice, NodeReport
from sparsecompile.report.model import Report
from sparsecompile.report.other_weights import read_by_others


def graph_report(
    graph: int,
    edit: Edit,
    lowered: Sequence[Lowered],
    before: str,
    after: str,
    failure: str = "",
) -> GraphReport:
    """The report of a graph.

    Args:
        graph: its number.
        edit: what passes did to it.
        lowered: its packed nodes.
        before: its code as it came.
        after: its code as it goes on.
        failure: why none of its packed nodes could get a kernel, else empty.
    """
    if failure:
        for _, match in operator_nodes(edit):
            for name in origins(match.node):
                edit.considered[name].reason = failure
    packed = {name: low for low in lowered for name in low.origins}
    nodes = [
        _node_report(graph, name, considered, packed.get(name), edit)
        for name, considered in sorted(edit.considered.items(), key=lambda item: item[1].linear)
        if not considered.is_split
    ]
    weights: set[Node] = set()
    for match in _spelled(edit):
        weights |= _made_of(match["weight"])
        names = origins(match.node) or (match.node.name,)
        if not set(names) <= edit.considered.keys():
            nodes.append(_unseen(graph, match.node, edit.weights.names(match["weight"])))
    seen = {name for node in nodes for name in node.weight.split(" x ")}
    seen |= {edit.weights.name(node) for node in weights}
    nodes += read_by_others(graph, edit, seen)
    return GraphReport(before, after, tuple(edit.rewrites), tuple(nodes), _regions(edit))


def _regions(edit: Edit) -> tuple[tuple[str, ...], ...]:
    regions = (node for node in edit.module.graph.nodes if is_region(node))
    return tuple(tuple(edit.considered[name].weight for name in origins(node)) for node in regions)


def _spelled(edit: Edit) -> Iterator[Match]:
    """What is left of nodes that operators look for, as the model writes them."""
    spellings = [op.spelling for op in edit.device.registry.all(Operator) if op.spelling]
    for node in edit.nodes():
        yield from (match for spelling in spellings if (match := spelling.match(node)))


def _refused(graph: int, name: str, considered: Considered) -> NodeReport:
    """A linear whose weight could not be taken; its shape is known from the graph."""
    report = NodeReport(
        graph, name, considered.weight, reason=considered.reason, reader=considered.reader
    )
    value = considered.value
    if value is None or value.dim() != 2 or not all(isinstance(n, int) for n in value.shape):
        return report
    nbytes = value.numel() * value.element_size()
    return replace(
        report,
        shape=(value.shape[0], value.shape[1]),
        dtype=str(value.dtype).removeprefix("torch."),
        dense_bytes=nbytes,
        packed_bytes=nbytes,
    )


def _without_weight(
    graph: int, name: str, considered: Considered, low: Lowered | None
) -> NodeReport:
    """A node that reads no weight, such as an attention."""
    node = NodeReport(
        graph,
        name,
        considered.weight,
        reason=considered.reason,
        reader=considered.reader,
        has_weight=False,
        lossy=considered.lossy,
        problem=str(low.problem) if low is not None else "",
    )
    return _with_outcome(node, low) if low is not None else node


def _made_of(weight: object) -> set[Node]:
    """All nodes that a weight is computed from, and itself."""
    found: set[Node] = set()
    left = [weight]
    while left:
        node = left.pop()
        if isinstance(node, Node) and node not in found:
            found.add(node)
            left += node.all_input_nodes
    return found


def _unseen(graph: int, node: Node, weight: str) -> NodeReport:
    return NodeReport(graph, node.name, weight, reason="no pass looked at it")


def _node_report(
    graph: int, name: str, considered: Considered, low: Lowered | None, edit: Edit
) -> NodeReport:
    survey = considered.survey
    if not considered.has_weight:
        return _without_weight(graph, name, considered, low)
    if survey is None:
        return _refused(graph, name, considered)
    kernel = low.kernel if low is not None else None
    node = NodeReport(
        graph=graph,
        node=name,
        weight=considered.weight,
        shape=survey.shape,
        dtype=survey.dtype,
        zeros=survey.zeros,
        findings=survey.findings,
        merged_with=_others(name, low, edit) if low is not None and kernel is not None else (),
        lossy=considered.lossy,
        dense_bytes=survey.dense_bytes,
        packed_bytes=survey.dense_bytes,
        reason="" if kernel is not None else _why_dense(name, considered, edit),
        problem=str(low.problem) if low is not None else "",
        reader=considered.reader,
    )
    if (part := considered.part) is not None:
        node = replace(
            node,
            dense_bytes=part.dense_bytes,
            expression=part.expression,
            part=part.index,
            error=part.error,
        )
    return _with_outcome(node, low) if low is not None else node


def switched(report: Report, graph: int, low: Lowered) -> Report:
    """The report with what serves a packed node of a graph from now on."""
    graphs = list(report.graph_reports)
    nodes = (_with_outcome(n, low) if n.node in low.origins else n for n in graphs[graph].nodes)
    graphs[graph] = replace(graphs[graph], nodes=tuple(nodes))
    sources = {s.name: s.text for s in (low.kernel.sources if low.kernel is not None else ())}
    return replace(report, graph_reports=tuple(graphs), sources={**report.sources, **sources})


def _with_outcome(node: NodeReport, low: Lowered) -> NodeReport:
    """The report of a linear with what serves the packed node that it became."""
    node = replace(
        node,
        trials=low.lowering.trials,
        chosen_by=low.lowering.reason,
        dropped=low.lowering.dropped,
    )
    kernel = low.kernel
    if kernel is None or (node.has_weight and node.shape is None):
        return node
    share = node.shape[0] / low.problem.shape[0] if node.shape is not None else 0
    return replace(
        node,
        kernel=_choice(low.lowering, kernel),
        packed_bytes=round(low.nbytes * share),
        **low.facts,
    )


def _choice(lowering: Lowering, kernel: Kernel) -> KernelChoice:
    return KernelChoice(
        str(kernel.spec),
        kernel.template.name,
        str(kernel.schedule),
        kernel.sources[0].name if kernel.sources else "",
        tuple(map(str, kernel.ranges)),
        lowering.reason,
        kernel.layout,
    )


def _others(name: str, low: Lowered, edit: Edit) -> tuple[str, ...]:
    return tuple(edit.considered[o].weight for o in low.origins if o != name)


def _why_dense(name: str, considered: Considered, edit: Edit) -> str:
    """The refusals recorded for a linear."""
    if considered.reason:
        return considered.reason
    reasons = [r.reason for r in edit.rewrites if r.node == name and r.reason]
    if reasons:
        return "; ".join(dict.fromkeys(reasons))
    try:
        considered.survey.format()  # type: ignore[union-attr]
    except Reject as reject:
        return reject.reason
    return "no pass packed it"
