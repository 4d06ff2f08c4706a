"""What was not done as asked for: lines in the log, or under `strict` an error."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from dataclasses import replace

from sparsecompile.errors import RejectedError
from sparsecompile.options.options import Options
from sparsecompile.options.recipes import unmatched
from sparsecompile.report.facts import NodeReport
from sparsecompile.report.model import Report

logger = logging.getLogger("sparsecompile")


def settle(
    nodes: Iterable[NodeReport],
    options: Options,
    failure: str = "",
    chosen: Set[str] = frozenset(),
) -> None:
    """Log what was decided on some weights.

    Args:
        nodes: of the report.
        options: the Compiler's.
        failure: why none could get a kernel, which is an error of its own; else empty.
        chosen: nodes that are dense because that is faster, which is no failure to pack them.

    Raises:
        RejectedError: under `strict`, one was left dense although it holds zeros or was asked to be
            changed.
    """
    for node in nodes:
        logger.info("%s: %s", node.weight, _outcome(node))
        wanted = node.has_weight and (node.zeros or options.prune or options.quantize)
        refused = not node.packed and node.node not in chosen and not failure
        if options.strict and wanted and refused:
            raise RejectedError(node.weight, node.reason, node.zeros)


def _outcome(node: NodeReport) -> str:
    """The format, or the mask, that a kernel serves; else why none does."""
    return (node.format or node.mask) if node.packed else f"dense: {node.reason}"


def compare_patterns(report: Report, options: Options) -> Report:
    """The report with the patterns that match none of its weights, each option's logged once.

    For functions: another graph of theirs may have what a pattern matches.

    Args:
        report: of the graphs compiled so far.
        options: the Compiler's.
    """
    weights = [node for node in report.nodes if node.has_weight]
    names = [name for node in weights for name in node.weight.split(" x ")]
    found = unmatched(options.recipes(), names)
    for option in found.keys() - report.unmatched.keys():
        logger.warning("%s, of those compiled so far", found[option])
    return replace(report, unmatched=found)
