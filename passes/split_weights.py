"""`split_weights`: a linear whose weight is an expression of others becomes linears of these."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import (
    LINEAR,
    Call,
    Edit,
    Format,
    KernelSpec,
    Match,
    Pass,
    Phase,
    Reject,
    insert_packed_linear,
)
from sparsecompile.detection.survey import survey
from sparsecompile.formats.expression import Compound, Expression, Leaf, Product, Shape
from sparsecompile.formats.names import remember_decomposition
from sparsecompile.graph.considered import PartOf
from sparsecompile.graph.timed import timed
from sparsecompile.operators.linear.race import Runner, is_faster
from sparsecompile.weights.expression import Apply, Binding
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.parts import part
from sparsecompile.weights.stored import StoredExpression

_LINEAR = Call(LINEAR, ("x", "weight", "bias"))


@dataclass(frozen=True)
class Split:
    """What a weight is taken for.

    Attributes:
        of: see `part`.
        parts: the expression, with the shape and the format of each part.
        text: what it is, for the report.
    """

    of: str
    parts: Expression[tuple[Shape, Format]]
    text: str


@dataclass(frozen=True)
class SplitWeights(Pass):
    """`linear(x, a + b, bias) -> packed(x, a, bias) + packed(x, b)`.

    And `linear(x, u v, bias) -> packed(packed(x, v), u, bias)`: a call a leaf, each in the format
    that takes the fewest bytes, where a decomposition finds such parts in the weight. They have to
    take fewer bytes than the weight, dense, and less time at every m than it does in the best
    format of its own, or dense. Where nothing is measured they have to be smaller than that, too.

    What is packed in the model as an expression is taken as it is.

    Attributes:
        tune: as in `Options`, and the same unless it is given.
    """

    tune: str = "off"

    name: ClassVar[str] = "split_weights"
    phase: ClassVar[Phase] = Phase.PACK
    before: ClassVar[tuple[str, ...]] = ("pack_linear",)
    after: ClassVar[tuple[str, ...]] = ("fold_quantized",)

    def run(self, edit: Edit) -> None:
        """Split weight by weight."""
        for node in edit.nodes():
            match = _LINEAR.match(node)
            if match is None:
                continue
            try:
                split = self._split(match, edit)
            except Reject as reject:
                edit.rejected(self.name, node, reject.reason)
                continue
            if split is not None:
                edit.replaced(self.name, node)
                _replace(match, split, edit)

    def _split(self, match: Match, edit: Edit) -> Split | None:
        """What a weight is, if it is an expression.

        Raises:
            Reject: it cannot be taken, or as it is it is faster.
        """
        weight = match["weight"]
        binding = edit.binding(weight)
        if edit.weights.stored(weight) is not None:
            found = _stored(binding, edit)
        else:
            found = self._worthwhile(match, binding, edit)
        if found is not None:
            edit.check_dtypes(weight, x=match["x"], bias=match["bias"])
        return found

    def _worthwhile(self, match: Match, binding: Binding, edit: Edit) -> Split | None:
        """By the first decomposition that is worth it."""
        with timed("detection"):
            whole = survey(binding, edit.weights.live(binding), edit.formats, edit.device)
        refusals = []
        for decomposition, surveys in whole.splits:
            of = remember_decomposition(decomposition)
            runners = [
                Runner(Apply(part, (binding, of, index)), found)
                for index, found in enumerate(surveys.leaves())
            ]
            text = f"{decomposition}: {surveys.of(r.format for r in runners)}"
            try:
                self._check(runners, Runner(binding, whole), match, edit)
            except Reject as reject:
                refusals.append(f"{text} {reject.reason}")
            else:
                parts: Expression[tuple[Shape, Format]]
                parts = surveys.of((r.survey.shape, r.format) for r in runners)
                return Split(of, parts, text)
        if refusals:
            raise Reject("; ".join(refusals))
        return None

    def _check(self, parts: list[Runner], whole: Runner, match: Match, edit: Edit) -> None:
        """Return if parts are better than a weight as it is.

        Raises:
            Reject: they are not.
        """
        for each in parts:
            edit.device.check(KernelSpec(each.format, edit.value(match["x"]).dtype))
        if is_faster(parts, [whole], edit.value(match["x"]), self.tune, edit):
            return
        nbytes, alone = sum(each.survey.best_bytes for each in parts), whole.survey.best_bytes
        if nbytes >= alone:
            raise Reject(f"takes {nbytes:,} bytes, {whole.format} {alone:,}, neither measured")


def _replace(match: Match, split: Split, edit: Edit) -> None:
    """Insert a packed linear for each leaf."""
    node, weight = match.node, match["weight"]
    value, leaves = edit.value(weight), []
    for index, (shape, format) in enumerate(split.parts.leaves()):
        args = (weight, split.of, index)
        which = PartOf(split.text, index, value.nbytes)
        shaped = value.new_empty(shape)
        new = edit.call(part, args, before=node, like=weight, value=shaped, part=which)
        leaves.append((new, format))
    new = _applied(split.parts.of(leaves), match["x"], match["bias"], node, edit)
    if edit.weights.stored(weight) is None:
        # For when its zeros change: it may then be better as it is.
        edit.survey(node, weight)
        edit.considered[node.name].is_split = True
    edit.replace(node, new)


def _stored(binding: Binding, edit: Edit) -> Split | None:
    """What the model holds packed as an expression."""
    weight, *others = edit.weights.live(binding)
    stored = weight.stored if isinstance(weight, PackedTensor) else None
    if others or isinstance(binding, Apply) or not isinstance(stored, StoredExpression):
        return None
    text = str(stored.format)
    return Split(text, stored.expression.map(lambda leaf: (leaf.shape, leaf.format)), text)


Placed = tuple[Node, Format]


def _applied(
    expression: Expression[Placed], x: Node, bias: Node | None, before: Node, edit: Edit
) -> Node:
    """The calls that compute `linear(x, expression, bias)`."""
    if isinstance(expression, Leaf):
        return _packed(expression.packed, x, bias, before, edit)
    assert isinstance(expression, Compound)
    first, *others = expression.parts
    if isinstance(expression, Product):
        for factor in reversed(others):
            x = _applied(factor, x, None, before, edit)
        return _applied(first, x, bias, before, edit)
    terms = [_applied(first, x, bias, before, edit)]
    terms += [_applied(term, x, None, before, edit) for term in others]
    return reduce(lambda a, b: edit.call(operator.add, (a, b), before=before), terms)


def _packed(leaf: Placed, x: Node, bias: Node | None, before: Node, edit: Edit) -> Node:
    """A packed linear of one leaf."""
    weight, format = leaf
    linear = edit.call(F.linear, (x, weight, bias), before=before)
    edit.survey(linear, weight)
    args = (x, weight, bias, format)
    new = insert_packed_linear(edit, *args, before=linear, origins=(linear.name,))
    edit.replace(linear, new)
    return new


COMPONENTS = (SplitWeights(),)
