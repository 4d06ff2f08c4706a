"""The torch ops on GPUs: `sparsecompile::linear` and `unpack`, and `sparsecompile::triton_linear`.

Those of attention are in `attention/ops.py`.

`triton_linear` takes what `linear` takes. Inductor sees the Triton functions that it starts; which
ones depends on m, so that a graph calls it where m is a constant. Where m is a symbol a graph calls
`linear`, which Inductor does not look into and which decides at every call: a new m compiles
nothing anew.
"""

from __future__ import annotations

import threading
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.triton.attention import ops as attention
from sparsecompile.codegen.triton.compiled import kept_here
from sparsecompile.codegen.triton.kernel import GpuKernel, find_kernel
from sparsecompile.codegen.triton.library import LibraryKernel
from sparsecompile.codegen.triton.start import FUSION, Wrap, start_linear, start_unpack
from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.ops import LINEAR_SCHEMA, LINEAR_SIGNATURE, NAMESPACE

Optional = Tensor | None


def run_linear(
    kernel: GpuKernel,
    x: Tensor,
    weight: Tensor,
    bias: Optional,
    operands: tuple[Optional, Optional],
    dense: tuple[Tensor, ...],
    n: int,
    wrap: Wrap,
    options: dict[str, Any],
) -> Tensor:
    """What serves this m: a function, a library, or the dense linear where that is at hand.

    Args:
        kernel: what is run.
        x: `[..., k]`.
        weight: its layout.
        bias: `[n]`.
        operands: `[..., n]` each.
        dense: the parts of the dense weight, `[n_i, k]`.
        n: rows of W.
        wrap: see `start.Wrap`.
        options: for Triton's compiler.
    """
    part = kernel.range_at(prod(x.shape[:-1]))
    given = [operand for operand in operands if operand is not None]
    if part.dense and dense:
        biases = (None,) * len(dense)
        if bias is not None:
            biases = bias.split([w.shape[0] for w in dense])
        y = torch.cat([F.linear(x, w, b) for w, b in zip(dense, biases, strict=True)], -1)
        return apply_epilogue(y, kernel.spec.epilogue, given)
    if isinstance(kernel, LibraryKernel):
        return kernel.linear(x, weight, bias, given, n, part)
    launch = kernel.launch_of(part)
    return start_linear(kernel, launch, x, weight, bias, operands, n, wrap, options)


def run_unpack(
    kernel: GpuKernel,
    weight: Tensor,
    like: Tensor,
    n: int,
    k: int,
    first: int,
    options: dict[str, Any],
) -> Tensor:
    """`n` rows from `first` on of the dense weight that a layout stands for: `[n, k]`.

    Args:
        kernel: that reads the layout.
        weight: the layout.
        like: of the dtype that is wanted.
        n: rows.
        k: columns.
        first: the first row; 0 where a library made the layout.
        options: for Triton's compiler.
    """
    if isinstance(kernel, LibraryKernel):
        return kernel.unpack(weight, like, n, k, first)
    return start_unpack(kernel, weight, like, n, k, first, options)


def _run(wrap: Wrap, *args: Any) -> Tensor:
    """`run_linear` on the arguments of the op."""
    x, weight, bias, operand0, operand1, *parts, n, kernel = args
    dense = tuple(part for part in parts if part is not None)
    found, operands = find_kernel(kernel), (operand0, operand1)
    return run_linear(found, x, weight, bias, operands, dense, n, wrap, FUSION)


def _linear(*args: Any) -> Tensor:
    # Triton starts functions on the current device.
    with torch.cuda.device(args[0].device), kept_here():
        return _run(_as_it_is, *args)


def _unpack(weight: Tensor, like: Tensor, n: int, k: int, kernel: int, first: int = 0) -> Tensor:
    found = find_kernel(kernel)
    with torch.cuda.device(weight.device), kept_here():
        return run_unpack(found, weight, like, n, k, first, FUSION)


def _linear_autograd(keys: Any, *args: Any) -> Tensor:
    """As the native op does: gradients for x and the bias where nothing is fused."""
    x, weight, bias, operand0, operand1, dense0, dense1, dense2, n, kernel = args
    given = [t for t in (x, bias, operand0, operand1) if t is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        _check_differentiable(kernel)
        with_grad = torch.ops.sparsecompile.linear_with_grad
        return with_grad(x, weight, bias, dense0, dense1, dense2, n, kernel)  # type: ignore[no-any-return]
    with torch._C._AutoDispatchBelowAutograd():
        op = torch.ops.sparsecompile.linear.default
        return op.redispatch(keys & torch._C._after_autograd_keyset, *args)  # type: ignore[no-any-return]


def _check_differentiable(key: int) -> None:
    if find_kernel(key).spec.epilogue:
        raise SparseCompileError(
            "gradients through a fused epilogue are not supported: compile with gradients "
            "enabled, so that nothing is fused"
        )


def _triton_linear(*args: Any) -> Tensor:
    from torch.library import wrap_triton

    # Inductor hands the option on to Triton since torch 2.14. Before, it drops it, and the Triton
    # of that time (3.6) fuses unless it is told not to: the result is the same.
    return _run(wrap_triton, *args)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *_, n, kernel = inputs
    _check_differentiable(kernel)
    ctx.save_for_backward(weight)
    ctx.n, ctx.k, ctx.kernel = n, x.shape[-1], kernel


def _backward(ctx: Any, grad: Tensor) -> tuple[Optional, ...]:
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        (weight,) = ctx.saved_tensors
        grad_x = grad @ torch.ops.sparsecompile.unpack(weight, grad, ctx.n, ctx.k, ctx.kernel)
    if ctx.needs_input_grad[2]:
        grad_bias = grad.reshape(-1, ctx.n).sum(0)
    return (grad_x, None, grad_bias, *[None] * 7)


def _as_it_is(function: Any) -> Any:
    return function


_loading = threading.Lock()


def load_ops() -> torch.library.Library:
    """Make the ops known to torch, once a process; kernels are assembled by several threads."""
    with _loading:
        return _load()


@cache
def _load() -> torch.library.Library:
    from torch.library import triton_op

    name = f"{NAMESPACE}::triton_linear"
    # Torch 2.11 has the argument `schema`, and does not read it.
    function: Any = _triton_linear
    function.__signature__ = LINEAR_SIGNATURE
    op: Any = triton_op(name, function, mutates_args=(), schema=LINEAR_SCHEMA)
    op.register_autograd(_backward, setup_context=_setup_context)
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    library.impl("linear", _linear, "CUDA")
    library.impl("linear", _linear_autograd, "AutogradCUDA", with_keyset=True)
    library.impl("unpack", _unpack, "CUDA")
    attention.implement(library)
    return library
