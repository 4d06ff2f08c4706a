"""Starting the functions of a generated module on tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.triton.fragment import TILE
from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.launch import Launch

Wrap = Callable[[Any], Any]
"""What a function goes through before it is started: `wrap_triton`, or nothing."""
Options = dict[str, Any]

ROUND_BLOCK = 1024
ADD_BLOCK = 256
UNPACK_ROWS = 16
# Triton 3.10 changes the default; with it a multiplication and an addition are rounded once.
FUSION: Options = {"enable_fp_fusion": True}


def start_linear(
    kernel: TritonKernel,
    launch: Launch,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operands: tuple[Tensor | None, Tensor | None],
    n: int,
    wrap: Wrap,
    options: Options,
) -> Tensor:
    """`epilogue(x @ W.T + bias)`: `[..., n]`.

    Args:
        kernel: whose functions are started.
        launch: which, and how.
        x: `[..., k]`.
        weight: a layout.
        bias: `[n]`.
        operands: `[..., n]` each.
        n: rows of W.
        wrap: see `Wrap`.
        options: for Triton's compiler.
    """
    module, k = kernel.modules[launch.source], x.shape[-1]
    m = prod(x.shape[:-1])
    rows = x.reshape(m, k)
    if k > 1 and rows.stride(1) != 1:
        rows = rows.contiguous()
    y = x.new_empty((m, n))
    if m == 0 or n == 0:
        return y.view(*x.shape[:-1], n)
    scales = None
    if kernel.spec.activations != "float":
        rounded = torch.empty((m, k), dtype=torch.int8, device=x.device)
        scales = torch.empty((m,), dtype=torch.float32, device=x.device)
        wrap(module.round_activations)[(m,)](
            rows, rounded, scales, k, rows.stride(0), BLOCK=ROUND_BLOCK, num_warps=4, **options
        )
        rows = rounded
    first, second = (None if o is None else o.reshape(m, n).contiguous() for o in operands)
    splits = launch.splits(n, -(-k // TILE))
    target = y if splits == 1 else x.new_empty((splits, m, n), dtype=torch.float32)
    grid = (-(-n // launch.block_n), -(-m // launch.block_m), splits)
    wrap(getattr(module, launch.function))[grid](
        rows,
        scales,
        weight,
        bias,
        first,
        second,
        target,
        m,
        n,
        k,
        rows.stride(0),
        BLOCK_N=launch.block_n,
        BLOCK_M=launch.block_m,
        SPLITS=splits,
        num_warps=launch.warps,
        num_stages=launch.stages,
        **options,
    )
    if splits > 1:
        wrap(module.add_parts)[(-(-n // ADD_BLOCK), m)](
            target,
            scales,
            weight,
            bias,
            first,
            second,
            y,
            m,
            n,
            k,
            BLOCK_N=ADD_BLOCK,
            SPLITS=splits,
            num_warps=4,
            **options,
        )
    return y.view(*x.shape[:-1], n)


def start_unpack(
    kernel: TritonKernel, weight: Tensor, like: Tensor, n: int, k: int, first: int, options: Options
) -> Tensor:
    """`n` rows from `first` on of the dense weight that a layout stands for: `[n, k]`.

    Args:
        kernel: that reads the layout.
        weight: the layout.
        like: of the dtype that is wanted.
        n: rows.
        k: columns.
        first: the first row.
        options: for Triton's compiler.
    """
    dense = torch.zeros((n, k), dtype=like.dtype, device=weight.device)
    if n == 0 or k == 0:
        return dense
    band, programs = kernel.band, -(-n // UNPACK_ROWS)
    if band is not None:
        # It is unpacked as a whole; the first and last may lie half outside.
        programs = -(-(first + n) // band) - first // band
    grid = (programs, -(-k // TILE))
    kernel.module.unpack[grid](weight, dense, first, n, k, BLOCK_N=UNPACK_ROWS, **options)
    return dense
