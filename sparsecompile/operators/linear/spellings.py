"""How models write one operation: targets and equations, for patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from sparsecompile.graph.weight_view import weight_reader

LINEAR = (F.linear, torch.ops.aten.linear.default)
"""`linear(input, weight, bias=None)`; what `canonicalize` leaves."""
for _target in LINEAR:
    weight_reader(_target)


@dataclass(frozen=True)
class Product:
    """`linear(x, weight)`, or `linear(x, t(weight))` where the weight is stored `[k, n]`."""

    x: Any
    weight: Any
    transposed: bool


def products(equation: str, operands: Sequence[Any]) -> Iterator[Product]:
    """The linears that `einsum(equation, *operands)` may be, each operand taken as the weight.

    Such as `...k,nk->...n`, whatever the letters are, and in whatever order the operands.
    """
    inputs, _, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or len(operands) != 2:
        return
    for i in (1, 0):
        rows, n, k = result[:-1], result[-1:], terms[1 - i][-1:]
        letters = rows.replace("...", "") + n + k
        # A letter that stands twice means a diagonal, or a sum over more than the columns.
        is_linear = terms[1 - i] == rows + k and len(set(letters)) == len(letters)
        if is_linear and letters.isalpha() and terms[i] in (n + k, k + n):
            yield Product(operands[1 - i], operands[i], terms[i] == k + n)
