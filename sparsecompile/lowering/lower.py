"""From nodes of operators to calls of ops, each with the kernel that serves it, if one does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit, origins
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.template import Source
from sparsecompile.kernels.trial import Trial
from sparsecompile.lowering.chain import LinearCall
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.lowering.problems import operator_nodes, problems_of, too_small
from sparsecompile.lowering.regions import join_regions
from sparsecompile.lowering.slots import DenseSlot, PackedSlot, Slot
from sparsecompile.operators.operator import Calling, Operator
from sparsecompile.options.options import Options


def lower(
    edit: Edit, options: Options
) -> tuple[list[Slot], list[Lowered], dict[PackedSlot, list[Lowered]], dict[str, Source]]:
    """Give every node of an operator its kernel, or put back what was there.

    Weights of slots become placeholders after the graph's own, in order.

    Args:
        edit: the graph.
        options: how kernels are chosen.

    Returns:
        The slots, what became of every node, which of these read a packed slot, and sources of
        regions by name.

    Raises:
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
        Reject: no template supports a spec.
    """
    problems = problems_of(edit, options)
    lowerings = _decided(edit, problems, follows=False)
    _follow(edit, problems, lowerings)
    lowerings |= _decided(edit, problems, follows=True)
    slots, lowered, calls = _Slots(edit), [], []
    slots.make_once()
    for operator, match in operator_nodes(edit):
        problem, names = problems[match.node], origins(match.node)
        lowering = lowerings[problem]
        if lowering.kernel is None:
            reason = dense_is_faster(lowering.trials) if lowering.trials else lowering.reason
            edit.rejected("lower", match.node, reason)
            for name in names:
                edit.considered[name].reason = reason
            operator.restore(match, problem, slots, edit)
            lowered.append(Lowered(names, operator, problem, lowering, 0))
            continue
        call = _calling(operator, problem, lowering, lowering.kernel, edit)
        emitted = operator.emit(match, problem, call, slots, edit)
        copy_bytes = sum(map(slots.nbytes, emitted.dense))
        nbytes = slots.nbytes(emitted.weight) + copy_bytes
        has_dense = bool(emitted.dense)
        node = Lowered(names, operator, problem, lowering, nbytes, call.key, has_dense, copy_bytes)
        lowered.append(node)
        slots.read(emitted.weight, node)
        if emitted.node.target is torch.ops.sparsecompile.linear.default:
            calls.append(LinearCall(emitted.node, call.kernel))
    joins = options.regions and not edit.weights.grad
    sources = join_regions(edit, calls) if joins else {}
    edit.check()
    return slots.all(), lowered, slots.readings, sources


def _decided(
    edit: Edit, problems: Mapping[Node, Problem[Any]], *, follows: bool
) -> dict[Problem[Any], Lowering]:
    """What becomes of the problems of those operators that follow others, or of the others."""
    samples: dict[Problem[Any], Callable[[], Sample]] = {}
    lowerings: dict[Problem[Any], Lowering] = {}
    for operator, match in operator_nodes(edit):
        if operator.follows != follows:
            continue
        problem = problems[match.node]
        why = too_small(operator, problem, edit.device)
        if why:
            lowerings[problem] = Lowering(None, (), why)
        else:
            samples.setdefault(problem, operator.sample(match, problem, edit))
    return lowerings | (edit.device.lower(samples) if samples else {})


def _follow(
    edit: Edit, problems: dict[Node, Problem[Any]], lowerings: Mapping[Problem[Any], Lowering]
) -> None:
    """Let nodes of operators that follow read the layouts that were chosen."""
    layouts: dict[tuple[Node, str], str] = {}
    for operator, match in operator_nodes(edit):
        if "weight" in match.captured and not operator.follows:
            kernel = lowerings[problems[match.node]].kernel
            if kernel is not None:
                layouts[match["weight"], match["format"]] = kernel.layout
    for operator, match in operator_nodes(edit):
        if operator.follows and (layout := layouts.get((match["weight"], match["format"]))):
            problems[match.node] = replace(problems[match.node], layout=layout)


def dense_is_faster(trials: tuple[Trial, ...]) -> str:
    """Why what could get a kernel was left as it is, with the figures."""
    parts, is_slower, is_elsewhere = [], True, False
    chosen = [trial for trial in trials if trial.chosen]
    for dense in chosen:
        others = [t for t in trials if t.rows == dense.rows and not t.chosen]
        best = min(others, key=lambda t: t.seconds)
        is_slower &= best.seconds >= dense.seconds
        is_elsewhere |= any(t.seconds + t.noise < dense.seconds for t in others)
        noise = f" +- {best.noise * 1e3:.3g}" if best.seconds < dense.seconds else ""
        parts.append(
            f"m={dense.rows} {dense.seconds * 1e3:.3g} ms, "
            f"{best.label} {best.seconds * 1e3:.3g}{noise} ms"
        )
    name = chosen[0].label
    why = f"{name} is faster" if is_slower else f"nothing beats {name} by more than the noise"
    if is_elsewhere:
        why = f"what beats {name} reads another layout than the best for all m of the weight"
    return f"{why}: {'; '.join(parts)}"


def _calling(
    operator: Operator[Any],
    problem: Problem[Any],
    lowering: Lowering,
    kernel: Kernel[Any],
    edit: Edit,
) -> Calling:
    """How a graph calls the kernel of a problem."""
    codegen, key = edit.device.codegen, kernel.key
    if codegen.switches and not isinstance(kernel.template, InlineExtern):
        key = _key(problem, kernel, edit.device)
        codegen.serve(key, kernel)
    op = codegen.op(kernel, problem) or operator.overload()
    wants_dense = kernel.wants_dense or _may_want_dense(problem, lowering, edit)
    return Calling(kernel, op, key, wants_dense)


def _key(problem: Problem[Any], kernel: Kernel[Any], device: Device) -> int:
    """What a graph calls the kernel of a problem: 63 bits, positive, the same in every process.

    What serves the call may change; so problems that may be decided otherwise have others. Which
    kernel serves it now does not count: a process that decides otherwise, knowing more, still finds
    the graph that Inductor compiled for the one before it.
    """
    facts = (problem.rows, problem.density, problem.dense, problem.tune, problem.dense_copy)
    made_of = (str(device.target), device.registry.identity)
    texts = (str(kernel.spec), str(problem), repr(facts), *made_of)
    return (int(digest(*texts)[:16], 16) >> 1) | 1


def _may_want_dense(problem: Problem[Any], lowering: Lowering, edit: Edit) -> bool:
    """Whether another layout may be chosen later, with which dense is faster for a graph's m.

    The model's own dense weight is in memory anyway; but each argument takes half a microsecond of
    a call.
    """
    is_open = edit.device.codegen.switches and lowering.is_open and not problem.is_dynamic
    return is_open and problem.dense is DenseUse.ANYWHERE and problem.dense_copy is None


class _Slots:
    """The slots of a graph and their placeholders; nodes of one weight share them.

    Args:
        edit: the graph.
    """

    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self._nodes: dict[Hashable, Node] = {}
        self._slots: dict[Node, Slot] = {}
        self.readings: dict[PackedSlot, list[Lowered]] = defaultdict(list)

    def packed(self, weight: Node, format: Format, kernel: Kernel[Any]) -> Node:
        """The layout of a weight that a kernel reads."""
        key = (weight, format, kernel.layout)
        bind = self._edit.binding
        return self._node(key, "packed", lambda: PackedSlot(bind(weight), format, kernel))

    def dense(self, weight: Node, copy: DenseCopy | None) -> Node:
        """The dense copy of a weight."""
        key = (weight, copy)
        return self._node(key, "dense", lambda: DenseSlot(self._edit.binding(weight), copy))

    def make_once(self) -> None:
        """Give slots to weights and biases that passes computed and that are not packed.

        In the graph they would be computed in each call.
        """
        edit = self._edit
        packed = {m["weight"] for _, m in operator_nodes(edit) if "weight" in m.captured}
        for node in edit.nodes():
            readers = [user for user in node.users if not edit.weights.is_function(user)]
            if readers and node not in packed and edit.weights.is_declared(node):
                with suppress(Reject):
                    edit.replace(node, self.dense(node, None))

    def read(self, node: Node | None, lowered: Lowered) -> None:
        """Note that a packed node reads a packed slot."""
        slot = self._slots[node] if node is not None else None
        if isinstance(slot, PackedSlot):
            self.readings[slot].append(lowered)

    def nbytes(self, node: Node | None) -> int:
        """Bytes that a node's slot takes; none if it has no slot."""
        if node is None or node not in self._slots:
            return 0
        slot = self._slots[node]
        return slot.nbytes(self._edit.weights.live(slot.binding))

    def all(self) -> list[Slot]:
        """In the order of their placeholders."""
        return list(self._slots.values())

    def _node(self, key: Hashable, name: str, make: Callable[[], Slot]) -> Node:
        if key not in self._nodes:
            # Made before the node is used: a weight that the op reads too can no longer be bound.
            slot = make()
            node = _placeholder(self._edit.module, f"{name}_{len(self._slots)}")
            self._nodes[key] = node
            self._slots[node] = slot
        return self._nodes[key]


def _placeholder(module: GraphModule, name: str) -> Node:
    """A new last placeholder."""
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        node = module.graph.placeholder(name)
    # AOTAutograd asks every placeholder for its source, and takes None for "not Dynamo's".
    node._dynamo_source = None
    node.meta["tensor_dict"] = {"_dynamo_static_input_type": "unguarded"}
    return node
