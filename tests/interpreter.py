"""Triton's interpreter, repaired for tests.

It keeps bfloat16 as uint16 and computes with these; products, arithmetic and conversions are what
our kernels do with bfloat16. That of Triton 3.6 takes an array of one element for the end of a
loop, which NumPy refuses since 2.4; Triton 3.7 squeezes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def repair() -> None:
    """Let the interpreter of this process loop to tensors, and compute with bfloat16."""
    _repair_loops()
    _repair_bfloat16()


def _repair_loops() -> None:
    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_tensor


def _repair_bfloat16() -> None:
    """As float32, rounded."""
    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    dot, binary, cast = builder.create_dot, builder.binary_op, builder.cast_impl
    convert = builder.create_fp_to_fp

    def create_dot(self: Any, a: Any, b: Any, sums: Any, *options: Any) -> Any:
        if not _is_bfloat16(a):
            return dot(self, a, b, sums, *options)
        product = np.matmul(_widen(a), _widen(b), dtype=np.float32)
        return handle(product + sums.data, sums.dtype.scalar)

    def binary_op(self: Any, left: Any, right: Any, op: Callable[..., Any]) -> Any:
        if not _is_bfloat16(left):
            return binary(self, left, right, op)
        result = op(_widen(left), _widen(right))
        if result.dtype == bool:
            return handle(result, tl.int1)
        return handle(_round(result), tl.bfloat16)

    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        if to.scalar == tl.bfloat16 and not _is_bfloat16(source):
            return handle(_round(source.data.astype(np.float32)), tl.bfloat16)
        return cast(self, source, to)

    def create_fp_to_fp(self: Any, source: Any, to: Any, rounding: Any) -> Any:
        if to.scalar == tl.bfloat16 and not _is_bfloat16(source):
            return handle(_round(source.data.astype(np.float32)), tl.bfloat16)
        return convert(self, source, to, rounding)

    builder.create_dot, builder.binary_op = create_dot, binary_op
    builder.cast_impl, builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    builder.create_si_to_fp = builder.create_ui_to_fp = cast_impl


def _is_bfloat16(value: Any) -> bool:
    return bool(value.dtype.scalar == tl.bfloat16)


def _widen(value: Any) -> Any:
    return (value.data.astype(np.uint32) << 16).view(np.float32)


def _round(value: Any) -> Any:
    """float32 to the bits of bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FC0), rounded)
