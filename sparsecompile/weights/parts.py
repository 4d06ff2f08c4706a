"""`part`: one of the weights that a weight of the model is an expression of."""

from __future__ import annotations

from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.names import decomposition_of
from sparsecompile.weights.expression import Apply, Binding
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.stored import Stored, StoredExpression


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
    return decomposition_of(of).parts(weight).leaves()[index]


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
    if not isinstance(binding, Apply):
        return False
    args = [x for arg in binding.args for x in (arg if isinstance(arg, tuple) else (arg,))]
    return binding.function is part or any(has_parts(arg) for arg in args)
