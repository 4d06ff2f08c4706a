"""From packed nodes to calls of the op: which kernel serves each, or the dense linear after all."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Hashable

import torch
from torch.fx import GraphModule, Node
from torch.nn import functional as F

from sparsecompile.formats.packed import Packed
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.epilogue import STEPS
from sparsecompile.kernels.ops import MAX_DENSE, arguments
from sparsecompile.kernels.problem import DenseUse, Problem, Trial
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.template import Kernel, Lowering
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.lowering.problems import live_parts, packer, problems_of, too_small
from sparsecompile.lowering.slots import DenseSlot, PackedSlot, Slot
from sparsecompile.operators.linear.packed import format_of, origins, packed_linears
from sparsecompile.options.options import Options


def lower_packed(
    edit: Edit, options: Options
) -> tuple[list[Slot], list[Lowered], dict[PackedSlot, list[Lowered]]]:
    """Give every packed node its kernel: `packed_linear(...) -> sparsecompile::linear(...)`.

    Where the dense linear is faster the node becomes dense again. Weights of slots become
    placeholders after the graph's own, in order.

    Args:
        edit: the graph.
        options: how kernels are chosen.

    Returns:
        The slots, what became of every packed node, and which of these read a packed slot.

    Raises:
        BuildError: the compiler is missing or failed.
        CacheError: the cache folder cannot be used.
        Reject: no template supports a spec.
    """
    problems = problems_of(edit, options)
    samples: dict[Problem, Callable[[], Packed]] = {}
    lowerings: dict[Problem, Lowering] = {}
    for match in packed_linears(edit):
        problem = problems[match.node]
        why = too_small(problem, edit.device)
        if why:
            lowerings[problem] = Lowering(None, (), why)
        else:
            binding = edit.binding(match["weight"])
            tensors = edit.weights.live(binding)
            sample = packer(binding, tensors, format_of(match["format"]))
            samples.setdefault(problem, sample)
    if samples:
        lowerings |= edit.device.lower(samples)
    slots = _Slots(edit)
    lowered = []
    for match in packed_linears(edit):
        problem = problems[match.node]
        lowering = lowerings[problem]
        kernel, names = lowering.kernel, origins(match.node)
        rows = edit.value(match["weight"]).shape[0]
        if kernel is None:
            reason = dense_is_faster(lowering.trials) if lowering.trials else lowering.reason
            edit.rejected("lower", match.node, reason)
            for name in names:
                edit.considered[name].reason = reason
            _restore_dense(match, _dense_weights(match, slots, problem), edit, problem.dense_copy)
            lowered.append(Lowered(names, problem, lowering, rows, 0))
            continue
        weight = slots.packed(match["weight"], kernel)
        call = kernel.key
        if edit.device.codegen.switches:
            call = _call(problem, kernel)
            edit.device.codegen.serve(call, kernel)
        dense: tuple[Node, ...] = ()
        if kernel.wants_dense or _may_want_dense(problem, lowering, edit):
            dense = _dense_weights(match, slots, problem, MAX_DENSE)
        copy_bytes = sum(map(slots.nbytes, dense))
        nbytes = slots.nbytes(weight) + copy_bytes
        x, bias, operands = match["x"], match["bias"], match["operands"]
        args = arguments(x, weight, bias, operands, dense, rows, call)
        op = edit.device.codegen.op(kernel, problem)
        value = edit.value(match.node)
        new = edit.call(op, args, before=match.node, value=value, origins=names)
        edit.replace(match.node, new)
        node = Lowered(names, problem, lowering, rows, nbytes, call, bool(dense), copy_bytes)
        lowered.append(node)
        slots.read(weight, node)
    edit.check()
    return slots.all(), lowered, slots.readings


def dense_is_faster(trials: tuple[Trial, ...]) -> str:
    """Why a weight that could be packed was left dense, with the figures."""
    parts, is_slower, is_elsewhere = [], True, False
    for dense in (trial for trial in trials if trial.chosen):
        others = [t for t in trials if t.rows == dense.rows and not t.chosen]
        best = min(others, key=lambda t: t.seconds)
        is_slower &= best.seconds >= dense.seconds
        is_elsewhere |= any(t.seconds + t.noise < dense.seconds for t in others)
        noise = f" +- {best.noise * 1e3:.3g}" if best.seconds < dense.seconds else ""
        parts.append(
            f"m={dense.rows} {dense.seconds * 1e3:.3g} ms, "
            f"{best.label} {best.seconds * 1e3:.3g}{noise} ms"
        )
    why = "dense is faster" if is_slower else "nothing beats dense by more than the noise"
    if is_elsewhere:
        why = "what beats dense reads another layout than the best for all m of the weight"
    return f"{why}: {'; '.join(parts)}"


def _call(problem: Problem, kernel: Kernel) -> int:
    """What a graph calls the kernel of a problem: 63 bits, positive, the same in every process.

    What serves the call may change; so problems that may be decided otherwise have others.
    """
    facts = (problem.rows, problem.density, problem.dense, problem.tune, problem.dense_copy)
    return (int(digest(str(kernel.key), str(problem), repr(facts))[:16], 16) >> 1) | 1


def _may_want_dense(problem: Problem, lowering: Lowering, edit: Edit) -> bool:
    """Whether another layout may be chosen later, with which dense is faster for a graph's m.

    The model's own dense weight is in memory anyway; but each argument takes half a microsecond of
    a call.
    """
    is_open = edit.device.codegen.switches and lowering.is_open and not problem.is_dynamic
    return is_open and problem.dense is DenseUse.ANYWHERE and problem.dense_copy is None


def _dense_weights(
    match: Match, slots: _Slots, problem: Problem, most: int | None = None
) -> tuple[Node, ...]:
    """The dense weights of a node: live ones if there are not too many, else a copy of them all."""
    parts, copy = live_parts(match), problem.dense_copy
    if parts and copy is None and (most is None or len(parts) <= most):
        return parts
    return (slots.dense(match["weight"], copy),)


def _restore_dense(
    match: Match, weights: tuple[Node, ...], edit: Edit, copy: DenseCopy | None
) -> None:
    """`packed_linear(...) -> linear(...)` and the epilogue's steps; merged linears come apart."""
    node, x = match.node, match["x"]
    biases: tuple[Node | None, ...] = (match["bias"],)
    if len(weights) > 1:
        biases = (
            tuple(match["bias"].args[0]) if match["bias"] is not None else (None,) * len(weights)
        )
    if copy is not None:
        args = (x, *weights, *biases, edit.value(match["weight"]).shape[0])
        linears = [edit.call(copy.op, args, before=node, origins=origins(node))]
    else:
        linears = [
            edit.call(F.linear, (x, weight, bias), before=node, origins=origins(node))
            for weight, bias in zip(weights, biases, strict=True)
        ]
    if len(linears) > 1 and _give_parts(node, linears, edit):
        return
    new = linears[0] if len(linears) == 1 else edit.call(torch.cat, (linears, -1), before=node)
    operands = iter(match["operands"])
    for name in match["epilogue"]:
        step = STEPS[name]
        args = (new, next(operands)) if step.has_operand else (new,)
        new = edit.call(step.apply, args, before=node)
    edit.replace(node, new)


def _give_parts(node: Node, linears: list[Node], edit: Edit) -> bool:
    """Where a merged node is only split again: hand out the linears. Whether it was so."""
    if len(node.users) != 1:
        return False
    (split,) = node.users
    if split.target is not torch.split:
        return False
    parts = list(split.users)
    if any(part.target is not operator.getitem for part in parts):
        return False
    for part in parts:
        edit.replace(part, linears[part.args[1]])  # type: ignore[index]
    edit.erase(split)
    edit.erase(node)
    return True


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

    def packed(self, weight: Node, kernel: Kernel) -> Node:
        """The layout of a weight that a kernel reads."""
        key = (weight, kernel.spec.format, kernel.layout)
        return self._node(key, "packed", lambda: PackedSlot(self._edit.binding(weight), kernel))

    def dense(self, weight: Node, copy: DenseCopy | None) -> Node:
        """The dense copy of a weight."""
        key = (weight, copy)
        return self._node(key, "dense", lambda: DenseSlot(self._edit.binding(weight), copy))

    def read(self, node: Node, lowered: Lowered) -> None:
        """Note that a packed node reads a packed slot."""
        slot = self._slots[node]
        if isinstance(slot, PackedSlot):
            self.readings[slot].append(lowered)

    def nbytes(self, node: Node) -> int:
        """Bytes that a node's slot takes; none if it has no slot."""
        if node not in self._slots:
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
