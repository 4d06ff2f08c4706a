"""What is known of every linear that was compiled, as plain data."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sparsecompile.detection.survey import Finding
from sparsecompile.graph.considered import Rewrite
from sparsecompile.kernels.trial import Trial

SCHEMA = 1
"""Version of `ReportFacts.to_json`; rises when a field changes its meaning or goes."""


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that a node calls.

    Attributes:
        spec: `str(KernelSpec)`.
        template: name of the template.
        schedule: `str(Schedule)`.
        source: name of the generated source, a key of `Report.sources`; empty of a library call.
        ranges: which function serves which m, such as `m <= 8: sc_linear_decode`.
        reason: what the choice rests on.
        layout: name of the layout that it reads.
    """

    spec: str
    template: str
    schedule: str
    source: str
    ranges: tuple[str, ...] = ()
    reason: str = ""
    layout: str = ""


@dataclass(frozen=True)
class NodeReport:
    """One linear of the model in one graph, or a weight with zeros that none reads.

    Attributes:
        graph: number of the graph, from 0; None of a weight that no graph reads.
        node: name of the node in `Report.before`.
        weight: fully qualified name of the weight in the model.
        shape: `(n, k)`, or None when the weight could not be looked at. What is read by no linear
            may have more dimensions.
        dtype: of the weight, such as `bfloat16`.
        zeros: share of zeros, or None.
        findings: what every format found; empty when the weight could not be looked at.
        format: the chosen format, or None when left dense.
        kernel: the chosen kernel, or None when left dense.
        epilogue: the steps fused behind it.
        merged_with: weights of the linears that became one packed node with this one.
        lossy: what changed the weight on request, such as `prune 2:4`; else empty.
        dense_bytes: bytes of the dense weight.
        packed_bytes: bytes of its layout, padding and header included; dense bytes if left dense.
            Of merged linears, this one's share.
        reason: why it was left dense; empty when packed.
        trials: what was measured for it, at each m; empty when nothing was.
        problem: what that was measured for, such as `n_m[2:4]/float bfloat16 960x576`, where n is
            that of all merged linears; empty when no kernel was looked for.
        chosen_by: what the choice of kernel or dense rests on, such as `measured`.
        dropped: candidates that were not measured after all, such as those that spill registers,
            each with the reason.
        reader: what reads the weight, where that is no linear: `conv2d`, `nn.LSTM`; else empty.
        has_weight: false of what reads none, such as attention; then `weight` names its module.
        mask: of attention: which keys its queries attend to, such as `causal`; else empty.
        kept: of attention: the share of places of its matrix that count, rounded; else None.
        picture: of attention: where these are, in lines of characters; empty where that is not
            known, or all do.
        expression: what the weight is where this is a linear of a part of it alone, such as
            `outlier_columns: sum(n_m[2:4]/float, csr/float)`; else empty. All but `weight` and
            `dense_bytes` is then of the part; `node` was put in by a pass.
        part: its place among the leaves of that, from 0; else None, as of a product of several
            weights, which is one linear.
        error: how far what was made of the weight on request is from it, as a share of its norm
            (Frobenius); None where that is not known.
    """

    graph: int | None
    node: str
    weight: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    zeros: float | None = None
    findings: tuple[Finding, ...] = ()
    format: str | None = None
    kernel: KernelChoice | None = None
    epilogue: tuple[str, ...] = ()
    merged_with: tuple[str, ...] = ()
    lossy: str = ""
    dense_bytes: int = 0
    packed_bytes: int = 0
    reason: str = ""
    trials: tuple[Trial, ...] = ()
    problem: str = ""
    chosen_by: str = ""
    dropped: tuple[tuple[str, str], ...] = ()
    reader: str = ""
    has_weight: bool = True
    mask: str = ""
    kept: float | None = None
    picture: str = ""
    expression: str = ""
    part: int | None = None
    error: float | None = None

    @property
    def packed(self) -> bool:
        """Whether it became a packed linear."""
        return self.kernel is not None


def _outcome(node: NodeReport) -> NodeReport:
    """What recompiles of one linear have in common: all but places and measurements."""
    kernel = node.kernel
    if kernel is not None:
        kernel = KernelChoice(kernel.spec, kernel.template, "", "", layout=kernel.layout)
    return replace(
        node,
        graph=0,
        node="",
        shape=None,
        dtype="",
        zeros=None,
        findings=(),
        kernel=kernel,
        trials=(),
        problem="",
        chosen_by="",
        dropped=(),
        kept=None,
        picture="",
        error=None,
    )


def _layout(node: NodeReport) -> Hashable:
    """What is equal for nodes that read one layout of a weight."""
    layout = node.kernel.layout if node.kernel is not None else ""
    return (node.weight, node.part, node.format, layout, frozenset(node.merged_with))


def _without_twins(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Each once: the chosen one where a graph for that m chose it and others did not."""
    found = dict.fromkeys(trials)
    return tuple(t for t in found if t.chosen or replace(t, chosen=True) not in found)


def _packed_last(node: NodeReport) -> bool:
    return node.packed


@dataclass(frozen=True)
class GraphReport:
    """One graph that Dynamo handed over.

    Attributes:
        before: readable code of the graph as it came.
        after: readable code of the graph as it went to Inductor.
        rewrites: what each pass did or refused, in order.
        nodes: its linears.
        regions: weights of the linears of each region, in the order of its stages.
    """

    before: str
    after: str
    rewrites: tuple[Rewrite, ...]
    nodes: tuple[NodeReport, ...]
    regions: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class ReportFacts:
    """Everything one Compiler has compiled so far.

    Attributes:
        target: `str(Target)`.
        graph_reports: one a graph, in the order of compilation.
        sources: generated source text by source name.
        read_bandwidth: bytes a second that the device reads from memory, None unless measured.
        misfits: weights with which a graph ran dense at some call, because they did not fit the
            format that it was compiled for, and the last reason of each.
        outside: weights with zeros that no graph reads.
        unmatched: what is to be said of name patterns of options that match no weight so far, by
            option. Only where the model is not known, but a function is compiled: else it is an
            error.
        origins: of kernels that are built ahead, by source name: the cache folder that had the
            library, empty where this process has built it.
    """

    target: str
    graph_reports: tuple[GraphReport, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    read_bandwidth: float | None = None
    misfits: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[NodeReport, ...] = ()
    unmatched: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def graphs(self) -> int:
        """How many graphs were compiled: graph breaks and recompiles make several."""
        return len(self.graph_reports)

    @property
    def nodes(self) -> tuple[NodeReport, ...]:
        """The linears of all graphs, each once: of recompiles with one outcome the first.

        It gets the trials, and what was dropped, of all of them: each may be for other m. Weights
        that no graph reads come last.
        """
        seen: dict[NodeReport, NodeReport] = {}
        for node in (*(n for graph in self.graph_reports for n in graph.nodes), *self.outside):
            first = seen.setdefault(_outcome(node), node)
            trials = _without_twins((*first.trials, *node.trials))
            dropped = tuple(dict.fromkeys((*first.dropped, *node.dropped)))
            seen[_outcome(node)] = replace(first, trials=trials, dropped=dropped)
        return tuple(seen.values())

    @property
    def linears(self) -> tuple[NodeReport, ...]:
        """Those of `nodes` that are linears."""
        return tuple(node for node in self.nodes if not node.reader)

    @property
    def before(self) -> str:
        """Readable code of all graphs as they came."""
        return "\n\n".join(graph.before for graph in self.graph_reports)

    @property
    def after(self) -> str:
        """Readable code of all graphs as they went to Inductor."""
        return "\n\n".join(graph.after for graph in self.graph_reports)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense weights of all linears; a shared weight counts once."""
        return sum({node.weight: node.dense_bytes for node in self._weights()}.values())

    @property
    def packed_bytes(self) -> int:
        """Bytes of the same weights as compiled graphs read them, a layout counted once.

        Graphs that read a weight in several layouts keep all of them.
        """
        packed = [node for node in self.nodes if node.packed]
        split = {node.weight for node in packed if node.part is not None}
        layouts = {_layout(node): node.packed_bytes for node in packed}
        dense = [node for node in self._weights() if not node.packed]
        left = (n.packed_bytes for n in dense if n.part is not None or n.weight not in split)
        return sum(left) + sum(layouts.values())

    def _weights(self) -> tuple[NodeReport, ...]:
        """A node for each weight, or part of one."""
        nodes = sorted(self.nodes, key=_packed_last)
        return tuple({(node.weight, node.part): node for node in nodes}.values())

    def to_json(self) -> str:
        """The report as JSON.

        An object with `schema` (an integer, this version's is `SCHEMA`), `target`, `graphs`,
        `dense_bytes`, `packed_bytes`, `read_bandwidth` (a number or null), `nodes` (a list of
        objects with the fields of `NodeReport` and `packed`), `rewrites` (a list of objects
        with `graph`, `pass`, `node`, `reason`), `misfits`, `unmatched` and `origins` (objects of
        strings).
        Trials also have `bandwidth` (bytes a second) and `share` (of `read_bandwidth`; null where
        that is unknown or the weight was in a cache).
        Fields are only ever added within one schema version.
        """
        return json.dumps(
            {
                "schema": SCHEMA,
                "target": self.target,
                "graphs": self.graphs,
                "dense_bytes": self.dense_bytes,
                "packed_bytes": self.packed_bytes,
                "read_bandwidth": self.read_bandwidth,
                "nodes": [self._facts(node) for node in self.nodes],
                "rewrites": [
                    {"graph": i, "pass": r.pass_name, "node": r.node, "reason": r.reason}
                    for i, graph in enumerate(self.graph_reports)
                    for r in graph.rewrites
                ],
                "misfits": dict(self.misfits),
                "unmatched": dict(self.unmatched),
                "origins": dict(self.origins),
            },
            indent=2,
        )

    def _facts(self, node: NodeReport) -> dict[str, Any]:
        trials = [
            {**asdict(t), "bandwidth": t.bandwidth, "share": self.share(t)} for t in node.trials
        ]
        return {**asdict(node), "trials": trials, "packed": node.packed}

    def share(self, trial: Trial) -> float | None:
        """What a trial makes of the read bandwidth; None if unknown or the weight was cached."""
        if not trial.cold or not self.read_bandwidth:
            return None
        return trial.bandwidth / self.read_bandwidth
