"""From nodes of operators to problems: what each needs a kernel for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch.fx import Node

from sparsecompile.formats.names import format_of
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.problem import LAYOUT_ROWS, DenseUse, Problem
from sparsecompile.lowering.slots import READERS
from sparsecompile.operators.operator import Operator
from sparsecompile.options.options import Options


def operator_nodes(edit: Edit) -> Iterator[tuple[Operator[Any], Match]]:
    """The nodes of operators in order, with the arguments they have when they come up."""
    operators = edit.device.registry.all(Operator)
    for node in edit.nodes():
        for operator in operators:
            match = operator.pattern.match(node)
            if match is not None:
                yield operator, match
                break


def problems_of(edit: Edit, options: Options) -> dict[Node, Problem[Any]]:
    """By node; layouts are compared at the m of all graphs that read the weight."""
    found = {
        match.node: _affordable(operator, operator.problem(match, edit, options), edit.device)
        for operator, match in operator_nodes(edit)
    }
    if not edit.device.codegen.switches:
        return found
    by_weight: dict[Node, list[Match]] = defaultdict(list)
    for _, match in operator_nodes(edit):
        if "weight" in match.captured:
            by_weight[match["weight"]].append(match)
    for weight, matches in by_weight.items():
        binding, format = edit.binding(weight), format_of(matches[0]["format"])
        problems = [found[match.node] for match in matches]
        for _, reading in READERS.of(binding, edit.weights.live(binding), format, edit.device):
            problems += [low.problem for low in reading.calls]
        rows = _layout_rows(problems)
        for match in matches:
            found[match.node] = replace(found[match.node], layout_rows=rows)
    return found


def _layout_rows(problems: Iterable[Problem[Any]]) -> tuple[int, ...]:
    """The m by which layouts are compared of a weight that is needed for all of these."""
    problems = tuple(problems)
    if any(problem.is_dynamic for problem in problems):
        return LAYOUT_ROWS
    return tuple(sorted({m for problem in problems for m in problem.rows}))


def _affordable(operator: Operator[Any], problem: Problem[Any], device: Device) -> Problem[Any]:
    """Without a dense copy where nothing is measured anyway."""
    return replace(problem, dense_copy=None) if too_small(operator, problem, device) else problem


def too_small(operator: Operator[Any], problem: Problem[Any], device: Device) -> str:
    """Why no kernel is even looked for; nothing where one is."""
    if problem.tune == "off" or problem.dense is DenseUse.NEVER:
        return ""
    return operator.nothing_to_gain(problem, device)
