"""`canonicalize`: one spelling for every linear."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile import LINEAR, Call, Edit, Match, Phase, Reject, Rule
from sparsecompile.operators.linear.spellings import Product, products

_ADD = (operator.add, torch.add, "add")
_TRANSPOSED = Call((torch.t,), ("transposed",))
_TRANSPOSES = ("t", torch.ops.aten.numpy_T, torch.ops.aten.mT, torch.ops.aten.t.default)


@dataclass(frozen=True)
class Canonicalize(Rule[Product | None]):
    """Every linear of a weight of the model becomes `linear(x, weight, bias)`.

    - `w.T`, `w.mT` and `w.t() -> t(w)`;
    - `addmm(bias, x, w) -> linear(x, t(w), bias)`, the 1x1 Conv1D of GPT-2;
    - `matmul(x, t(w)) -> linear(x, w)` and `matmul(x, w) -> linear(x, t(w))`;
    - `einsum("...k,nk->...n", x, w) -> linear(x, w)`, whatever the letters, `w` also `kn` or first;
    - `linear(x, w) + bias -> linear(x, w, bias)` for a bias of the model, of shape `[n]`;
    - `dropout(x) -> x` where it is switched off, so that what follows is seen.
    """

    name: ClassVar[str] = "canonicalize"
    phase: ClassVar[Phase] = Phase.NORMALIZE

    def patterns(self) -> Sequence[Call]:
        """The spellings."""
        linear = Call(LINEAR, ("x", "weight", "no_bias"), capture="linear")
        return (
            Call(_TRANSPOSES, ("weight",), tag="transpose"),
            # How Dynamo writes `w.T` before torch 2.13.
            Call((getattr,), ("weight", "attribute"), tag="attribute"),
            Call(
                (torch.addmm, torch.ops.aten.addmm.default),
                ("bias", "x", "weight", "beta", "alpha"),
                tag="addmm",
            ),
            Call(
                (torch.matmul, operator.matmul, torch.mm, torch.ops.aten.mm.default, "matmul"),
                ("x", "weight"),
                tag="matmul",
            ),
            Call((torch.einsum,), ("equation", "first", "second"), tag="einsum"),
            Call(_ADD, ("input", "bias"), where={"input": linear}, commutative=True, tag="bias"),
            Call((F.dropout, torch.dropout), ("input", "p", "training", "inplace"), tag="dropout"),
        )

    def guard(self, match: Match, edit: Edit) -> Product | None:
        """Reject what is no linear of a weight of the model; the linear that an einsum is."""
        if match.pattern.tag == "dropout":
            if match["training"] is not False and match["p"] != 0:
                raise Reject("dropout is switched on")
            return None
        if match.pattern.tag == "einsum":
            return self._product(match, edit)
        if not edit.weights.is_weight(match["weight"]):
            raise Reject("reads no weight of the model")
        if match.pattern.tag == "attribute" and match["attribute"] not in ("T", "mT"):
            raise Reject(f"reads the weight's {match['attribute']}")
        if edit.value(match["weight"]).dim() != 2:
            raise Reject("the weight is not two-dimensional")
        if match.pattern.tag == "addmm" and not (
            match["beta"] in (None, 1) and match["alpha"] in (None, 1)
        ):
            raise Reject("addmm scales its terms")
        if match.pattern.tag == "bias":
            self._check_separate_bias(match, edit)
        elif match.pattern.tag == "addmm" and edit.value(match["bias"]).dim() != 1:
            raise Reject("what is added is no bias of shape [n]")
        return None

    def _product(self, match: Match, edit: Edit) -> Product:
        """The linear that an einsum is."""
        equation, first, second = match["equation"], match["first"], match["second"]
        operands = first if second is None else (first, second)
        for product in products(equation, operands) if isinstance(equation, str) else ():
            if not edit.weights.is_weight(product.weight):
                continue
            k = edit.value(product.weight).shape[0 if product.transposed else 1]
            if edit.value(product.x).shape[-1] != k:
                raise Reject("einsum repeats what has one column")
            return product
        raise Reject("einsum is no linear of a weight of the model")

    def _check_separate_bias(self, match: Match, edit: Edit) -> None:
        linear, bias = match["linear"], match["bias"]
        if match["no_bias"] is not None:
            raise Reject("the linear has a bias already")
        if not edit.weights.is_weight(bias):
            raise Reject("what is added is not a weight of the model")
        if edit.value(bias).shape != edit.value(match["weight"]).shape[:1]:
            raise Reject("what is added is no bias of shape [n]")
        if len(linear.users) > 1:
            raise Reject("the linear's result without the bias is used too")
        writer = edit.writes_between(linear, match.node)
        if writer is not None:
            raise Reject(f"{writer.name} writes in place in between")

    def replace(self, match: Match, facts: Product | None, edit: Edit) -> None:
        """Insert the linear."""
        node = match.node
        if match.pattern.tag == "dropout":
            edit.replace(node, match["input"])
            return
        if match.pattern.tag in ("transpose", "attribute"):
            edit.replace(node, edit.call(torch.t, (match["weight"],), before=node))
            return
        if match.pattern.tag == "bias":
            args = (match["x"], match["weight"], match["bias"])
        else:
            product = facts or Product(match["x"], match["weight"], transposed=True)
            weight = product.weight
            if product.transposed:
                weight = self._transpose(weight, node, edit)
            args = (product.x, weight, match["bias"] if match.pattern.tag == "addmm" else None)
        edit.replace(node, edit.call(F.linear, args, before=node))
        if match.pattern.tag == "bias":
            edit.erase(match["linear"])

    def _transpose(self, weight: Node, before: Node, edit: Edit) -> Node:
        inner = _TRANSPOSED.match(weight)
        if inner is not None:
            transposed: Node = inner["transposed"]
            return transposed
        return edit.call(torch.t, (weight,), before=before, like=weight)


COMPONENTS = (Canonicalize(),)
