"""What was not done as asked for: lines in the log, or under `strict` an error."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Set
from dataclasses import replace

from torch import nn

from sparsecompile.errors import RejectedError
from sparsecompile.graph.compiled_model import matrices
from sparsecompile.options.options import Options
from sparsecompile.options.recipes import check_patterns, matches, unmatched
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
        if not node.has_weight:
            wanted, refused = _is_asked(node, options), not node.lossy
        else:
            wanted = bool(node.zeros) or options.changes_weights
            refused = not node.packed and node.node not in chosen
        if options.strict and wanted and refused and not failure:
            raise RejectedError(node.weight, node.reason, node.zeros)


def _is_asked(node: NodeReport, options: Options) -> bool:
    """Whether an attention is to be sparse."""
    return any(matches(pattern, node.weight) for pattern in options.masks())


def check_names(options: Options, model: nn.Module) -> None:
    """Return if every name pattern means something of the model.

    Raises:
        OptionError: one matches no weight, or no module where it is of attentions.
    """
    check_patterns(options.recipes(), matrices(model))
    modules = [name for name, _ in model.named_modules() if name]
    check_patterns({"attention": options.masks()}, modules, "module")


def _outcome(node: NodeReport) -> str:
    """The format, or the mask, that a kernel serves; else why none does."""
    return (node.format or node.mask) if node.packed else f"dense: {node.reason}"


def compare_patterns(report: Report, options: Options, *, knows_model: bool) -> Report:
    """The report with the patterns that match nothing of it, each option's logged once.

    Another graph may have what a pattern matches.

    Args:
        report: of the graphs compiled so far.
        options: the Compiler's.
        knows_model: whether weights are known by the model already, of which no function is.
    """
    attentions = [node.weight for node in report.nodes if not node.has_weight]
    found = unmatched({"attention": options.masks()}, attentions, "attention")
    if not knows_model:
        weights = [node for node in report.nodes if node.has_weight]
        names = [name for node in weights for name in node.weight.split(" x ")]
        found |= unmatched(options.recipes(), names)
    for option in found.keys() - report.unmatched.keys():
        logger.warning("%s, of those compiled so far", found[option])
    return replace(report, unmatched=found)
