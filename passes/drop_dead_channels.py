"""`drop_dead_channels`: what is always zero, or never read, between linears is not computed."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import LINEAR, QUANTIZED_WEIGHT, Call, Edit, Match, Pass, Phase, Reject
from sparsecompile.detection.survey import survey
from sparsecompile.graph.considered import PartOf
from sparsecompile.graph.fake_calls import fake_call
from sparsecompile.graph.timed import timed
from sparsecompile.weights.channels import channels_in_use, take_channels
from sparsecompile.weights.expression import Apply, Binding, evaluate

_LINEAR = Call(LINEAR, ("x", "weight", "bias"))
_STEPS = {
    *(F.relu, torch.relu, "relu", F.gelu, F.silu, F.mish, torch.tanh, F.tanh, "tanh"),
    *(F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.hardswish, F.softsign, torch.neg, "neg"),
    *(torch.abs, "abs", torch.square, "square"),
}
"""Elementwise, and zero of zero."""
_GATE = Call((operator.mul, torch.mul, "mul"), ("input", "other"))
_KINDS = ("rows", "columns")
_MULTIPLE = 8
"""Channels that are left are as many: kernels read rows of 16 bytes at once."""


@dataclass(frozen=True)
class Channels:
    """What lies between linears.

    Attributes:
        makers: linears whose rows are the channels; with one that is zero the product is.
        steps: elementwise, in the order of the graph.
        readers: linears whose columns they are.
    """

    makers: tuple[Match, ...]
    steps: tuple[Node, ...]
    readers: tuple[Match, ...]

    @property
    def weights(self) -> Iterator[tuple[Node, int]]:
        """All weights and biases, and which of their dimensions the channels are."""
        for maker in self.makers:
            yield maker["weight"], 0
            if maker["bias"] is not None:
                yield maker["bias"], 0
        for reader in self.readers:
            yield reader["weight"], 1


@dataclass(frozen=True)
class DropDeadChannels(Pass):
    """`linear(act(linear(x, a)), b) -> linear(act(linear(x, a[live])), b[:, live])`.

    And `linear(act(linear(x, g)) * linear(x, u), d)` alike, for steps that make zero of zero. A
    channel is dead where a row of a, with its bias, or the column of b holds nothing but zeros. All
    weights together have to take fewer bytes without, each in the format, or the parts, that take
    the fewest.
    """

    name: ClassVar[str] = "drop_dead_channels"
    phase: ClassVar[Phase] = Phase.PACK
    before: ClassVar[tuple[str, ...]] = ("fuse_low_rank", "split_weights", "pack_linear")
    after: ClassVar[tuple[str, ...]] = ("fold_quantized",)

    def run(self, edit: Edit) -> None:
        """Between linears, until nothing goes: less at one place may make less at another pay."""
        refused: dict[Node, str] = {}
        while self._drop(edit, refused):
            refused.clear()
        for node, reason in refused.items():
            edit.rejected(self.name, node, reason)

    def _drop(self, edit: Edit, refused: dict[Node, str]) -> bool:
        """Go through all places once; whether anything went, and what was left for which reason."""
        found = False
        for node in edit.nodes():
            channels = _between(node, edit)
            if channels is None:
                continue
            try:
                count = self._count(channels, edit)
            except Reject as reject:
                refused[node] = reject.reason
                continue
            if count is not None:
                edit.replaced(self.name, node)
                _take(channels, count, edit)
                found = True
        return found

    def _count(self, channels: Channels, edit: Edit) -> int | None:
        """How many channels are to be left; None for all.

        Raises:
            Reject: weights cannot be taken, or take no fewer bytes without the others.
        """
        for weight, _ in channels.weights:
            if (stored := edit.weights.stored(weight)) is not None:
                raise Reject(f"the model holds {edit.weights.names(weight)} packed as {stored}")
        if any(QUANTIZED_WEIGHT.match(weight) is not None for weight, _ in channels.weights):
            return None  # Its scales may be of what would be dropped.
        bound = {weight: edit.binding(weight) for weight, _ in channels.weights}
        sources = _sources(channels, bound)
        in_use = Apply(channels_in_use, sources)
        with timed("detection"):
            found = evaluate(in_use, edit.weights.live(in_use))
        live, total = int(found.sum()), len(found)
        count = max(-(-live // _MULTIPLE), 1) * _MULTIPLE
        if count >= total:
            return None
        for weight, _ in channels.weights:
            edit.hoist(weight, channels.makers[0].node)
        now, then = 0, 0
        for weight, dim in channels.weights:
            if edit.value(weight).dim() == 2:  # A bias takes next to nothing.
                now += _bytes(bound[weight], edit)
                then += _bytes(Apply(take_channels, (bound[weight], dim, count, *sources)), edit)
        if then >= now:
            dead = f"{total - live} of {total} channels are dead; without them"
            raise Reject(f"{dead} weights take {then:,} bytes, with them {now:,}")
        return count


def _between(hidden: Node, edit: Edit) -> Channels | None:
    """What makes a node, if linears alone read it and nobody what it is made of."""
    readers = [match for user in hidden.users if (match := _LINEAR.match(user)) is not None]
    if not readers or len(readers) < len(hidden.users):
        return None
    makers: dict[Node, Match] = {}
    steps: list[Node] = []
    waiting = [hidden]
    while waiting:
        node = waiting.pop()
        if node in makers or node in steps:
            continue
        if node is not hidden and len(node.users) > 1:
            return None
        if (maker := _LINEAR.match(node)) is not None:
            makers[node] = maker
        elif (inputs := _inputs(node, edit)) is not None:
            steps.append(node)
            waiting += inputs
        else:
            return None
    if any(hidden in (reader["weight"], reader["bias"]) for reader in readers):
        return None
    ordered = tuple(makers[node] for node in sorted(makers))
    return Channels(ordered, tuple(sorted(steps)), tuple(readers))


def _inputs(node: Node, edit: Edit) -> list[Node] | None:
    """What a step reads that makes zero of zeros; None if it is none."""
    if node.op in ("call_function", "call_method") and node.target in _STEPS:
        return node.all_input_nodes if len(node.all_input_nodes) == 1 else None
    if (gate := _GATE.match(node)) is None:
        return None
    both = [gate["input"], gate["other"]]
    try:
        same = all(isinstance(each, Node) and edit.same_shape(each, node) for each in both)
    except Reject:
        return None
    return both if same else None


def _sources(channels: Channels, of: dict[Node, Any]) -> tuple[Any, Any]:
    """The arguments `makers` and `readers` of `take_channels`."""
    makers = tuple((of[m["weight"]], of.get(m["bias"])) for m in channels.makers)
    return makers, tuple(of[m["weight"]] for m in channels.readers)


def _bytes(binding: Binding, edit: Edit) -> int:
    """The fewest that a weight takes, in a format or in parts."""
    with timed("detection"):
        found = survey(binding, edit.weights.live(binding), edit.formats, edit.device)
    parts = (sum(part.best_bytes for part in form.leaves()) for _, form in found.splits)
    return min((found.best_bytes, *parts))


def _take(channels: Channels, count: int, edit: Edit) -> None:
    """Put smaller weights in the place of all."""
    first = channels.makers[0].node
    nodes = {weight: weight for weight, _ in channels.weights}
    sources = _sources(channels, nodes)
    taken: dict[tuple[Node, int], Node] = {}
    for weight, dim in channels.weights:
        value, of = edit.value(weight), weight.meta.get("sparsecompile_part")
        shape = list(value.shape)
        total, shape[dim] = shape[dim], count
        texts = (of.expression if of else "", f"{total - count} of {total} {_KINDS[dim]} dropped")
        taken[weight, dim] = edit.call(
            take_channels,
            (weight, dim, count, *sources),
            before=first,
            like=weight,
            value=value.new_empty(shape),
            part=PartOf(
                ", ".join(filter(None, texts)), None, of.dense_bytes if of else value.nbytes
            ),
        )
    # In place, so that reports call them as the model's graph does.
    for maker in channels.makers:
        bias = maker["bias"] and taken[maker["bias"], 0]
        maker.node.args, maker.node.kwargs = (maker["x"], taken[maker["weight"], 0], bias), {}
    for reader in channels.readers:
        args = (reader["x"], taken[reader["weight"], 1], reader["bias"])
        reader.node.args, reader.node.kwargs = args, {}
    for node in sorted((*(maker.node for maker in channels.makers), *channels.steps)):
        node.meta["example_value"] = fake_call(node)


COMPONENTS = (DropDeadChannels(),)
