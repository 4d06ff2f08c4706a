"""`fuse_low_rank`: linears one after the other become one where their product is cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import LINEAR, Call, Edit, Match, Pass, Phase, Reject
from sparsecompile.detection.survey import Survey, survey
from sparsecompile.graph.considered import PartOf
from sparsecompile.graph.timed import timed
from sparsecompile.kernels.problem import rows_of
from sparsecompile.operators.linear.race import Runner, is_faster
from sparsecompile.weights.expression import Apply
from sparsecompile.weights.parts import product, product_bias

_INNER = Call(LINEAR, ("input", "v", "inner_bias"), capture="inner")
_CHAIN = Call(LINEAR, ("x", "u", "bias"), where={"x": _INNER})


@dataclass(frozen=True)
class FuseLowRank(Pass):
    """`linear(linear(x, v, c), u, b) -> linear(x, u v, u c + b)`, where that is less to do.

    Factors of a low rank stay two linears, each packed as any other. The product has to read no
    more bytes and compute no more than they do, at every m that the graph is called with, and to
    take less time where that is measured. It is exact up to one rounding of each value.

    Attributes:
        tune: as in `Options`, and the same unless it is given.
    """

    tune: str = "off"

    name: ClassVar[str] = "fuse_low_rank"
    phase: ClassVar[Phase] = Phase.PACK
    before: ClassVar[tuple[str, ...]] = ("split_weights", "pack_linear")
    after: ClassVar[tuple[str, ...]] = ("fold_quantized",)

    def run(self, edit: Edit) -> None:
        """Chain by chain; of a longer one, pair by pair."""
        for node in edit.nodes():
            last = node
            while match := _CHAIN.match(last):
                try:
                    self._check(match, edit)
                except Reject as reject:
                    edit.rejected(self.name, last, reject.reason)
                    break
                edit.replaced(self.name, last)
                last = _multiplied(match, edit)

    def _check(self, match: Match, edit: Edit) -> None:
        """Return if the product is cheaper.

        Raises:
            Reject: it is not, or cannot take the place of the factors.
        """
        inner, weights = match["inner"], (match["u"], match["v"])
        factors = [Runner(edit.binding(weight), _survey(weight, edit)) for weight in weights]
        for weight in weights:
            if (stored := edit.weights.stored(weight)) is not None:
                raise Reject(f"the model holds {edit.weights.names(weight)} packed as {stored}")
        edit.check_dtypes(match["u"], x=match["input"], v=match["v"], bias=match["inner_bias"])
        if match["inner_bias"] is not None:
            for bias in filter(None, (match["inner_bias"], match["bias"])):
                edit.binding(bias)
        if len(inner.users) > 1:
            raise Reject("what the first of two linears gives is read by others, too")
        if writer := edit.writes_between(inner, match.node):
            raise Reject(f"{writer.name} writes in place in between")
        x = edit.value(match["input"])
        _check_cost(factors, x, edit)
        binding = Apply(product, tuple(factor.binding for factor in factors))
        found = survey(binding, edit.weights.live(binding), edit.formats, edit.device)
        try:
            is_faster([Runner(binding, found)], factors[::-1], x, self.tune, edit)
        except Reject as reject:
            raise Reject(f"{_text(factors)}, multiplied out, {reject.reason}") from reject


def _survey(weight: Node, edit: Edit) -> Survey:
    binding = edit.binding(weight)
    with timed("detection"):
        return survey(binding, edit.weights.live(binding), edit.formats, edit.device)


def _text(factors: Sequence[Runner]) -> str:
    """`product(96x8, 8x64) of rank 8`."""
    shapes = [factor.survey.shape for factor in factors]
    listed = ", ".join(f"{n}x{k}" for n, k in shapes)
    return f"product({listed}) of rank {min(min(shape) for shape in shapes)}"


def _check_cost(factors: Sequence[Runner], x: Tensor, edit: Edit) -> None:
    """Return if a product without zeros is at no m more to read, nor to compute, than the factors.

    Raises:
        Reject: it is more at one.
    """
    u, v = (factor.survey for factor in factors)
    shape = (u.shape[0], v.shape[1])
    nbytes = shape[0] * shape[1] * x.dtype.itemsize
    dense = Survey(shape, u.dtype, nbytes, 0.0, (), None)
    whole = Runner(factors[0].binding, dense).cost(x, edit)
    costs = [factor.cost(x, edit) for factor in factors]
    for m in rows_of(x)[0]:
        figures = {
            "bytes": (whole.moved(m), sum(cost.moved(m) for cost in costs)),
            "operations": (whole.computed(m), sum(cost.computed(m) for cost in costs)),
        }
        for what, (ours, theirs) in figures.items():
            if ours > theirs:
                more = f"{ours:,.0f} {what}, not {theirs:,.0f}: m={m}"
                raise Reject(f"{_text(factors)}, multiplied out, takes {more}")


def _multiplied(match: Match, edit: Edit) -> Node:
    """Put one linear in the place of two."""
    node, factors, bias = match.node, (match["u"], match["v"]), match["bias"]
    values = [edit.value(factor) for factor in factors]
    flat = tuple(arg for f in factors for arg in (f.args if f.target is product else (f,)))
    weight = edit.call(
        product,
        flat,
        before=node,
        like=factors[0],
        value=values[0].new_empty((values[0].shape[0], values[1].shape[1])),
        part=_part(flat, edit),
    )
    if match["inner_bias"] is not None:
        value = values[0].new_empty(values[0].shape[:1])
        args = (factors[0], match["inner_bias"], bias)
        bias = edit.call(product_bias, args, before=node, like=factors[0], value=value)
    new = edit.call(F.linear, (match["input"], weight, bias), before=node)
    edit.replace(node, new)
    edit.erase(match["inner"])
    return new


def _part(factors: Sequence[Node], edit: Edit) -> PartOf:
    """What reports say of the product."""
    values = [edit.value(factor) for factor in factors]
    shapes = ", ".join("x".join(map(str, value.shape)) for value in values)
    of = [factor.meta.get("sparsecompile_part") for factor in factors]
    lossy = ", ".join(dict.fromkeys(part.lossy for part in of if part is not None and part.lossy))
    return PartOf(f"product({shapes}), multiplied out", None, sum(v.nbytes for v in values), lossy)


COMPONENTS = (FuseLowRank(),)
