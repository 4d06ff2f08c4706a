"""From packed nodes to problems: what each needs a kernel for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from sparsecompile.formats.packed import Format, Packed
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.ops import MAX_DENSE
from sparsecompile.kernels.problem import LAYOUT_ROWS, DenseUse, Problem, rows_of
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.template import Device
from sparsecompile.lowering.slots import READERS
from sparsecompile.operators.linear.packed import format_of, origins, packed_linears
from sparsecompile.options.options import Options
from sparsecompile.weights.expression import Binding
from sparsecompile.weights.packing import pack_binding

_DENSITY_STEP = 0.05


def problems_of(edit: Edit, options: Options) -> dict[Node, Problem]:
    """By packed node; layouts are compared at the m of all graphs that read the weight."""
    found = {match.node: _problem(match, edit, options) for match in packed_linears(edit)}
    if not edit.device.codegen.switches:
        return found
    by_weight: dict[Node, list[Problem]] = defaultdict(list)
    for match in packed_linears(edit):
        by_weight[match["weight"]].append(found[match.node])
    for weight, problems in by_weight.items():
        binding, format = edit.binding(weight), problems[0].spec.format
        for _, reading in READERS.of(binding, edit.weights.live(binding), format, edit.device):
            problems += [low.problem for low in reading.calls]
    rows = {weight: _layout_rows(problems) for weight, problems in by_weight.items()}
    return {
        match.node: replace(found[match.node], layout_rows=rows[match["weight"]])
        for match in packed_linears(edit)
    }


def _layout_rows(problems: Iterable[Problem]) -> tuple[int, ...]:
    """The m by which layouts are compared of a weight that is needed for all of these."""
    problems = tuple(problems)
    if any(problem.is_dynamic for problem in problems):
        return LAYOUT_ROWS
    return tuple(sorted({m for problem in problems for m in problem.rows}))


def _problem(match: Match, edit: Edit, options: Options) -> Problem:
    x, weight = edit.value(match["x"]), edit.value(match["weight"])
    rows, is_dynamic = rows_of(x)
    surveys = [edit.considered[name].survey for name in origins(match.node)]
    kept = [1 - survey.zeros for survey in surveys if survey is not None]
    density = sum(kept) / len(kept) if kept else 1.0
    dense = _dense_use(match, edit, options)
    copies = dense is not DenseUse.NEVER and (options.dense_copies or not live_parts(match))
    # Torch's own linear has gradients.
    copies = copies and not edit.weights.grad
    problem = Problem(
        spec=KernelSpec(
            format_of(match["format"]), x.dtype, match["epilogue"], match["activations"]
        ),
        shape=(weight.shape[0], weight.shape[1]),
        rows=rows,
        is_dynamic=is_dynamic,
        dense=dense,
        tune=options.tune,
        density=round(round(density / _DENSITY_STEP) * _DENSITY_STEP, 2),
    )
    if copies and not too_small(problem, edit.device):
        return replace(problem, dense_copy=edit.device.codegen.dense_copy(x.dtype))
    return problem


def too_small(problem: Problem, device: Device) -> str:
    """Why no kernel is even looked for; nothing where one is."""
    if problem.tune == "off" or problem.dense is DenseUse.NEVER:
        return ""
    return device.codegen.nothing_to_gain(problem.shape, problem.rows, problem.spec.dtype)


def packer(binding: Binding, tensors: tuple[Tensor, ...], format: Format) -> Callable[[], Packed]:
    """What packs a weight, of the live tensors of its leaves in order, for measurements."""

    def pack() -> Packed:
        with torch.no_grad():
            return pack_binding(binding, tensors, format)

    return pack


def _dense_use(match: Match, edit: Edit, options: Options) -> DenseUse:
    """Where the dense linear can serve a node."""
    lossless = format_of(match["format"]).codec.lossless and match["activations"] == "float"
    if not lossless or edit.weights.stored(match["weight"]) is not None:
        return DenseUse.NEVER
    is_kept = options.dense_copies or 0 < len(live_parts(match)) <= MAX_DENSE
    return DenseUse.ANYWHERE if is_kept else DenseUse.ALONE


def live_parts(match: Match) -> tuple[Node, ...]:
    """The model's own dense weights that a node does the work of; none where it needs a copy."""
    weight: Node = match["weight"]
    parts: Any = weight.args[0] if weight.target is torch.cat else (weight,)
    return tuple(parts) if all(map(_is_view, parts)) else ()


def _is_view(node: Node) -> bool:
    """Whether a weight is a parameter, transposed at most."""
    return node.op == "placeholder" or (
        node.target is torch.t and _is_view(node.all_input_nodes[0])
    )
