"""Small Triton kernels whose machine code is known, for tests of the analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl

from sparsecompile.codegen.triton.inspection.specialization import Specialization


@triton.jit
def _matmul(
    x,
    w,
    y,
    m,
    n,
    k,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    kind: tl.constexpr,
    precision: tl.constexpr,
):
    r = tl.program_id(0) * rows + tl.arange(0, rows)
    c = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((columns, rows), kind)
    for start in range(0, k, depth):
        d = start + tl.arange(0, depth)
        weight = tl.load(w + c[:, None] * k + d[None, :], mask=(c < n)[:, None], other=0)
        activations = tl.load(x + r[None, :] * k + d[:, None], mask=(r < m)[None, :], other=0)
        total = tl.dot(weight, activations, total, out_dtype=kind, input_precision=precision)
    tl.store(y + r[None, :] * n + c[:, None], total, mask=(r < m)[None, :] & (c < n)[:, None])


@triton.jit
def _gemv(x, w, y, n, k, rows: tl.constexpr, depth: tl.constexpr):
    r = tl.program_id(0) * rows + tl.arange(0, rows)
    total = tl.zeros((rows, depth), tl.float32)
    for start in range(0, k, depth):
        d = start + tl.arange(0, depth)
        weight = tl.load(w + r[:, None] * k + d[None, :])
        total += weight.to(tl.float32) * tl.load(x + d).to(tl.float32)[None, :]
    tl.store(y + r, tl.sum(total, 1))


TYPES = {"fp16": (tl.float32, "fp32"), "fp32": (tl.float32, "fp32"), "i8": (tl.int32, "i32")}


def matmul(
    rows: int = 16,
    columns: int = 64,
    depth: int = 64,
    dtype: str = "fp16",
    precision: str = "ieee",
    **options: int,
) -> Specialization:
    """`y[m, n] = x[m, k] @ w[n, k].T`."""
    kind, result = TYPES[dtype]
    constants: Mapping[str, Any] = {
        "rows": rows,
        "columns": columns,
        "depth": depth,
        "kind": kind,
        "precision": precision,
    }
    types = {"x": f"*{dtype}", "w": f"*{dtype}", "y": f"*{result}"}
    types |= dict.fromkeys(("m", "n", "k"), "i32")
    divisible = frozenset(("x", "w", "y", "n", "k"))
    return Specialization(
        _matmul, types, constants, divisible, {"num_warps": 4, "num_stages": 3, **options}
    )


def spilling() -> Specialization:
    """A tile of sums that no register file holds."""
    return matmul(128, 256, 64, num_stages=1)


def gemv(divisible: bool = True) -> Specialization:
    """`y[n] = w[n, k] @ x[k]`."""
    types = {"x": "*fp16", "w": "*fp16", "y": "*fp32", "n": "i32", "k": "i32"}
    names = frozenset(("x", "w", "y", "n", "k")) if divisible else frozenset[str]()
    return Specialization(_gemv, types, {"rows": 4, "depth": 1024}, names, {"num_warps": 4})
