"""The torch ops `sparsecompile::linear`, `dense_linear` and `unpack`: schemas, fakes, autograd.

Their CPU implementations are a native library that `sparsecompile.codegen` builds and loads; the
arguments are of types that Inductor's C++ wrapper passes without calling back into Python.

`linear(x, weight, bias, operand0, operand1, dense0, dense1, dense2, n, kernel)`: `x` `[..., k]`
float32, bfloat16 or float16; `weight` uint8, a layout made by the kernel's `prepack` or a view of
its first `HEADER_BYTES` (the op reads the storage behind it, so that graphs do not depend on how
many bytes a weight takes); `bias` `[n]`; operands `[..., n]`, in the order of the epilogue's steps;
`dense` parts `[n0, k]`, `[n1, k]`, ..., the dense weight for rows that the kernel leaves to torch's
dense linear, or one part as `dense_linear` takes it, None where it leaves none; `kernel` a
`Kernel.key`. Returns `[..., n]` in x's dtype.

`dense_linear(x, weight, bias, n)`: the same with a dense weight `[n, k]` in a library's own order,
as `DenseCopy.make` gives it; it has no gradients.

`unpack(weight, like, n, k, kernel, first)`: `n` rows from `first` on of the dense weight that a
layout stands for, `[n, k]`, in the dtype of `like`: the kernel's, or float32, in which every value
is exact.

`unpack_rows(weight, rows, like, n, k, kernel, first)`: those of these rows that `rows` names, int32
or int64 from 0 to n - 1, `[*rows.shape, k]`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.epilogue import MAX_OPERANDS

NAMESPACE = "sparsecompile"
HEADER_BYTES = 128
"""Bytes of the header that every layout begins with."""
MAX_DENSE = 3
"""Parts in which a dense weight may come: q, k and v, or gate and up."""

Fake = TypeVar("Fake", bound=Callable[..., Tensor])
_library = torch.library.Library(NAMESPACE, "DEF")


def schema_of(function: Callable[..., Tensor], number: str = "int") -> str:
    """The schema of an op with a function's signature: `(Tensor x, int n) -> Tensor`."""
    # Implementations in C++ take numbers: sizes of weights are no symbols.
    return torch.library.infer_schema(function, mutates_args=()).replace("SymInt", number)


def define(fake: Fake, *, number: str = "int") -> Fake:
    """Define an op of this namespace by a function that says what it returns: its fake.

    The function's name is the op's, its signature the schema.

    Args:
        fake: the function.
        number: what its integers are: `SymInt` where they vary from call to call.
    """
    name = fake.__name__.strip("_")
    _library.define(name + schema_of(fake, number))
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    return fake


@define
def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operand0: Tensor | None,
    operand1: Tensor | None,
    dense0: Tensor | None,
    dense1: Tensor | None,
    dense2: Tensor | None,
    n: int,
    kernel: int,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], n))


@define
def _dense_linear(x: Tensor, weight: Tensor, bias: Tensor | None, n: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], n))


@define
def _unpack(weight: Tensor, like: Tensor, n: int, k: int, kernel: int, first: int = 0) -> Tensor:
    return like.new_empty((n, k))


@define
def _unpack_rows(
    weight: Tensor, rows: Tensor, like: Tensor, n: int, k: int, kernel: int, first: int = 0
) -> Tensor:
    return like.new_empty((*rows.shape, k))


LINEAR_SIGNATURE = signature(_linear)
LINEAR_SCHEMA = schema_of(_linear)
"""Of the op `linear`, and of those that take what it takes."""


class _PackedLinear(torch.autograd.Function):
    """Gradient of a packed linear with respect to its input and bias; the weight is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dense: tuple[Tensor | None, ...],
        n: int,
        kernel: int,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.n, ctx.kernel, ctx.k = n, kernel, x.shape[-1]
        with torch._C._AutoDispatchBelowAutograd():
            op = torch.ops.sparsecompile.linear
            return op(x, weight, bias, None, None, *dense, n, kernel)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            (weight,) = ctx.saved_tensors
            dense = torch.ops.sparsecompile.unpack(weight, grad, ctx.n, ctx.k, ctx.kernel)
            grad_x = grad @ dense
        if ctx.needs_input_grad[2]:
            grad_bias = grad.reshape(-1, ctx.n).sum(0)
        return grad_x, None, grad_bias, None, None, None


def _linear_with_grad(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense0: Tensor | None,
    dense1: Tensor | None,
    dense2: Tensor | None,
    n: int,
    kernel: int,
) -> Tensor:
    """What the native op's Autograd key calls when a gradient is wanted."""
    dense = (dense0, dense1, dense2)
    return _PackedLinear.apply(x, weight, bias, dense, n, kernel)  # type: ignore[no-any-return]


_library.define("linear_with_grad" + schema_of(_linear_with_grad))
_library.impl("linear_with_grad", _linear_with_grad, "CompositeImplicitAutograd")


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operands: tuple[Tensor, ...],
    n: int,
    kernel: int,
    dense: tuple[Tensor, ...] = (),
) -> Tensor:
    """Call the op with however many operands the kernel's epilogue reads, and parts of dense."""
    return torch.ops.sparsecompile.linear(  # type: ignore[no-any-return]
        *arguments(x, weight, bias, operands, dense, n, kernel)
    )


def arguments(
    x: Any,
    weight: Any,
    bias: Any,
    operands: tuple[Any, ...],
    dense: tuple[Any, ...],
    n: Any,
    kernel: int,
) -> tuple[Any, ...]:
    """The op's arguments, None where there are fewer operands or parts.

    Raises:
        SparseCompileError: more of them than the op takes.
    """
    if len(operands) > MAX_OPERANDS:
        raise SparseCompileError(
            f"an epilogue reads at most {MAX_OPERANDS} tensors, not {len(operands)}"
        )
    if len(dense) > MAX_DENSE:
        raise SparseCompileError(
            f"a dense weight comes in at most {MAX_DENSE} parts, not {len(dense)}"
        )
    padded = (*operands, *[None] * (MAX_OPERANDS - len(operands)))
    parts = (*dense, *[None] * (MAX_DENSE - len(dense)))
    return (x, weight, bias, *padded, *parts, n, kernel)
