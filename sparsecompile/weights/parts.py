"""Weights that are made of others: `part`, of an expression; `product`, of factors."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import reduce

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.names import decomposition_of
from sparsecompile.weights.channels import take_channels
from sparsecompile.weights.expression import Apply, Binding
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.snapshot import take_snapshot
from sparsecompile.weights.stored import Stored, StoredExpression

_LEFT: dict[Hashable, dict[int, Tensor]] = {}
"""What nobody has asked for yet of the last weight that was split: parts are made one by one."""


def part(weight: Tensor, of: str, index: int) -> Tensor:
    """One part of a weight, dense: a function of weights that graphs call.

    Args:
        weight: `[n, k]`; dense, or an expression that is packed in the model.
        of: the decomposition by which it is split, as `remember_decomposition` calls it; or how it
            is packed, such as `sum(n_m[2:4]/float, csr/float)`.
        index: the part's place among the leaves.

    Raises:
        Reject: it cannot be split, or is packed otherwise.
    """
    if isinstance(weight, PackedTensor):
        return stored_part(weight, of, index).unpack()
    key = (of, None if weight.is_inference() else take_snapshot(weight).fingerprint)
    left = _LEFT.pop(key, {})
    _LEFT.clear()
    if index not in left or weight.is_inference():
        left = dict(enumerate(decomposition_of(of).parts(weight).leaves()))
    found = left.pop(index)
    _LEFT[key] = left
    return found


def product(*factors: Tensor) -> Tensor:
    """`factors[0] @ factors[1] @ ...`, rounded once: a function of weights that graphs call.

    Args:
        factors: `[n, r]`, ..., `[r, k]`, of one dtype.
    """
    return _product(*factors).to(factors[0].dtype)


def product_bias(factor: Tensor, inner: Tensor, outer: Tensor | None) -> Tensor:
    """`factor @ inner + outer`, rounded once: the bias `[n]` of two linears that become one.

    Args:
        factor: `[n, r]`.
        inner: `[r]`.
        outer: `[n]`, or None for zeros.
    """
    found = _product(factor, inner)
    return (found if outer is None else found + outer).to(factor.dtype)


def _product(*factors: Tensor) -> Tensor:
    wide = torch.float64 if factors[0].dtype == torch.float32 else torch.float32
    return reduce(torch.matmul, (factor.to(wide) for factor in factors))


def stored_part(weight: PackedTensor, of: str, index: int) -> Stored:
    """One part of an expression that is packed in the model.

    Raises:
        Reject: the weight is packed otherwise.
    """
    stored = weight.stored
    if not isinstance(stored, StoredExpression) or str(stored.format) != of:
        raise Reject(f"the weight is packed as {stored.format}, not as {of}")
    return stored.expression.leaves()[index]


def has_parts(binding: Binding) -> bool:
    """Whether a weight is made of parts of others."""
    return _calls(binding, (part,))


def may_go(binding: Binding) -> bool:
    """Whether there may be no such weight any more once those that it is made of have changed."""
    return _calls(binding, (part, take_channels))


def _calls(binding: Binding, functions: tuple[Callable[..., Tensor], ...]) -> bool:
    if not isinstance(binding, Apply):
        return False
    args = [x for arg in binding.args for x in (arg if isinstance(arg, tuple) else (arg,))]
    return binding.function in functions or any(_calls(arg, functions) for arg in args)
