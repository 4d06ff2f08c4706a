"""Reporter: what a Compiler's report says, added to by several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sparsecompile.graph.compiled_model import compiled_model
from sparsecompile.graph.edit import Edit
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.options.options import Options
from sparsecompile.report.collect import graph_report, switched
from sparsecompile.report.dump import Dump
from sparsecompile.report.facts import NodeReport
from sparsecompile.report.model import Report
from sparsecompile.report.other_weights import outside_of_graphs
from sparsecompile.report.strictness import compare_patterns, settle

logger = logging.getLogger("sparsecompile")


class Reporter:
    """What happened to the linears of all graphs of a Compiler.

    Args:
        options: the Compiler's.
        target: what it compiles for.
    """

    def __init__(self, options: Options, target: Target) -> None:
        self.report = Report(str(target))
        self.options = options
        self._lock = threading.Lock()

    def graph(
        self,
        edit: Edit,
        lowered: Sequence[Lowered],
        before: str,
        after: str,
        dump: Dump,
        regions: Mapping[str, Source] | None = None,
        failure: str = "",
    ) -> int:
        """Add a graph to the report; its number.

        Raises:
            RejectedError: under `strict`, something was left dense.
        """
        kernels = [low.kernel for low in lowered if low.kernel is not None]
        built = {s.name: s for kernel in kernels for s in kernel.sources} | dict(regions or {})
        sources = {name: source.text for name, source in built.items()}
        model, bandwidth = compiled_model(), self.report.read_bandwidth
        origins = {name: folder for k in kernels for name, folder in k.origins.items()}
        if bandwidth is None and any(low.lowering.trials for low in lowered):
            bandwidth = edit.device.codegen.read_bandwidth()
        with self._lock:
            number = self.report.graphs
            graph = graph_report(number, edit, lowered, before, after, failure)
            # One Compiler may serve graphs on several devices.
            before_it = self.report.target.split(", ") if self.report.graph_reports else []
            self.report = replace(
                self.report,
                target=", ".join(dict.fromkeys((*before_it, str(edit.device.target)))),
                graph_reports=(*self.report.graph_reports, graph),
                sources={**self.report.sources, **sources},
                origins={**self.report.origins, **origins},
                read_bandwidth=bandwidth,
            )
            self.report = compare_patterns(self.report, self.options, knows_model=model is not None)
        dump.finish(self.report, {s.file: s.text for s in built.values()})
        chosen = {name for low in lowered if low.lowering.is_choice for name in low.origins}
        settle(graph.nodes, self.options, failure, chosen)
        if model is not None:
            self.add_outside(outside_of_graphs(model, set(), finished=False))
        return number

    def switched(self, number: int, low: Lowered) -> None:
        """Note what serves a node of a graph from now on."""
        with self._lock:
            self.report = switched(self.report, number, low)

    def add_outside(self, nodes: Iterable[NodeReport]) -> None:
        """Add to the report weights with zeros that no graph reads.

        Raises:
            RejectedError: under `strict`, there are some.
        """
        found = {node.weight: node for node in nodes}
        with self._lock:
            outside = {node.weight: node for node in self.report.outside} | found
            self.report = replace(self.report, outside=tuple(outside.values()))
        settle(found.values(), self.options)

    def misfit(self, weight: str, reason: str, alone: bool) -> None:
        """See `runtime.Misfit`."""
        dense = "linear" if alone else "graph"
        logger.warning("%s %s; its %s runs dense until it can", weight, reason, dense)
        with self._lock:
            misfits = {**self.report.misfits, weight: reason}
            self.report = replace(self.report, misfits=misfits)
