"""`split_weights`: a linear whose weight is an expression of others becomes linears of these."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import (
    LINEAR,
    Call,
    Decomposition,
    Edit,
    Format,
    Match,
    Phase,
    Reject,
    Rule,
    insert_packed_linear,
)
from sparsecompile.detection.survey import Survey, survey
from sparsecompile.formats.expression import Compound, Expression, Leaf, Product, Shape
from sparsecompile.formats.names import remember_decomposition
from sparsecompile.graph.edit import PartOf
from sparsecompile.operators.linear.race import Runner, is_faster
from sparsecompile.weights.expression import Apply, Binding
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.parts import has_parts, part
from sparsecompile.weights.stored import StoredExpression


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
class SplitWeights(Rule[Split]):
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

    def patterns(self) -> Sequence[Call]:
        """Any linear."""
        return (Call(LINEAR, ("x", "weight", "bias")),)

    def guard(self, match: Match, edit: Edit) -> Split:
        """What the weight is."""
        weight = match["weight"]
        binding = edit.binding(weight)
        if has_parts(binding):
            raise Reject("the weight is a part of another")
        is_stored = edit.weights.stored(weight) is not None
        found = _stored(binding, edit) if is_stored else self._found(match, binding, edit)
        edit.check_dtypes(weight, x=match["x"], bias=match["bias"])
        return found

    def _found(self, match: Match, binding: Binding, edit: Edit) -> Split:
        """By the first decomposition that is worth it."""
        whole = edit.survey(match.node, match["weight"])
        if not whole.zeros:
            raise Reject("the weight holds no zeros")
        reasons = []
        for decomposition in edit.device.registry.all(Decomposition):
            if decomposition.exact:
                try:
                    return self._split(match, binding, decomposition, whole, edit)
                except Reject as reject:
                    reasons.append(f"{decomposition}: {reject.reason}")
        raise Reject("; ".join(reasons) or "there is no decomposition")

    def _split(
        self,
        match: Match,
        binding: Binding,
        decomposition: Decomposition,
        whole: Survey,
        edit: Edit,
    ) -> Split:
        of, form = remember_decomposition(decomposition), decomposition.form(whole.shape)
        tensors = edit.weights.live(binding)
        runners = []
        for index in range(len(form.leaves())):
            bound = Apply(part, (binding, of, index))
            runners.append(Runner(bound, survey(bound, tensors, edit.formats, edit.device)))
        formats = iter([runner.format for runner in runners])
        parts = form.map(lambda shape: (shape, next(formats)))
        text = str(parts.map(lambda leaf: leaf[1]))
        nbytes, single = sum(r.survey.best_bytes for r in runners), Runner(binding, whole)
        if nbytes >= whole.dense_bytes:
            raise Reject(f"{text} takes {nbytes:,} bytes, dense {whole.dense_bytes:,}")
        faster = is_faster(runners, single, edit.value(match["x"]), self.tune, edit)
        if not faster and nbytes >= whole.best_bytes:
            alone = f"{single.format} {whole.best_bytes:,}"
            raise Reject(f"{text} takes {nbytes:,} bytes, {alone}; nothing was measured")
        return Split(of, parts, f"{decomposition}: {text}")

    def replace(self, match: Match, facts: Split, edit: Edit) -> None:
        """Insert a packed linear for each leaf."""
        node, weight = match.node, match["weight"]
        value, leaves = edit.value(weight), []
        for index, (shape, format) in enumerate(facts.parts.leaves()):
            args = (weight, facts.of, index)
            new = edit.call(part, args, before=node, like=weight, value=value.new_empty(shape))
            dense_bytes = value.numel() * value.element_size()
            leaves.append((new, format, PartOf(facts.text, index, dense_bytes)))
        rest = iter(leaves)
        parts = facts.parts.map(lambda leaf: next(rest))
        new = _applied(parts, match["x"], match["bias"], node, edit)
        if node.name in edit.considered:
            edit.considered[node.name].is_split = True
        edit.replace(node, new)


def _stored(binding: Binding, edit: Edit) -> Split:
    """What the model holds packed as an expression.

    Raises:
        Reject: it is packed in one format, or something is computed of it.
    """
    weight, *_ = edit.weights.live(binding)
    if isinstance(binding, Apply) or not isinstance(weight, PackedTensor):
        raise Reject(f"the graph computes {binding} of a weight that is packed in the model")
    stored = weight.stored
    if not isinstance(stored, StoredExpression):
        raise Reject(f"the model holds the weight packed as {stored.format}")
    text = str(stored.format)
    return Split(text, stored.expression.map(lambda leaf: (leaf.shape, leaf.format)), text)


Placed = tuple[Node, Format, PartOf]


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
    weight, format, part_of = leaf
    linear = edit.call(F.linear, (x, weight, bias), before=before)
    edit.survey(linear, weight)
    edit.considered[linear.name].part = part_of
    args = (x, weight, bias, format)
    new = insert_packed_linear(edit, *args, before=linear, origins=(linear.name,))
    edit.replace(linear, new)
    return new


COMPONENTS = (SplitWeights(),)
