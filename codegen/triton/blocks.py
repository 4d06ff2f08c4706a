"""The blocks template: kept blocks are gathered and multiplied, empty ones cost nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from sparsecompile.codegen.triton.fragment import ELEMENTS, TritonStructure, Values
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.template import (
    TritonTemplate,
    matrix_kind,
    precision,
    scaled,
)
from sparsecompile.problem import Contents
from sparsecompile.spec import KernelSpec, Schedule, Target

if TYPE_CHECKING:
    from sparsecompile.costs import Cost

COLUMNS = 64
"""Columns of W that a pass takes at least: of several blocks where these are narrower."""

VARIATIONS = (
    (16, 2, 32, 4, 3),
    (16, 8, 128, 4, 2),
    (16, 1, 128, 8, 3),
    (32, 4, 256, 8, 2),
    (16, 4, 64, 8, 4),
    (16, 4, 64, 2, 2),
)
"""Of a search: tokens and warps of the function for few, and of that for many; stages."""

LOAD = '''\
@triton.jit
def load_columns(weight, at, last, n, k):
    """Columns of the blocks `at`, `[{columns}]`: whole blocks, so that x is read in stretches."""
    col = col_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begins = tl.load(col + at, mask=at < last, other=0) * {width}
    columns = begins + tl.arange(0, {columns}) % {width}
    return tl.max_contiguous(tl.multiple_of(columns, {width}), {width})


@triton.jit
def load_blocks(weight, at, last, n, k):
    """The same blocks side by side: `[{height}, {columns}]`."""
    slots = at.to(tl.int64) * {size} + tl.arange(0, {columns}) % {width}
    slots = slots[None, :] + tl.arange(0, {height})[:, None] * {width}
    return values_at(values_part(weight, n, k), slots, (at < last)[None, :])
'''

LINEAR = '''\
@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """A band of blocks times BLOCK_M tokens, y^T = W x^T: {count} kept blocks a pass."""
    band = tl.program_id(0)
    rows = band * {height} + tl.arange(0, {height})
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_rows = x + tokens.to(tl.int64) * x_stride
    total = tl.zeros(({height}, BLOCK_M), tl.float32)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    for block in range(first, last, {count}):
        at = block + tl.arange(0, {columns}) // {width}
        columns = load_columns(weight, at, last, n, k)
        kept = (at < last) & (columns < k)
        there = kept[:, None] & (tokens < m)[None, :]
        activations = tl.load(x_rows[None, :] + columns[:, None], mask=there, other=0.0)
        value = load_blocks(weight, at, last, n, k)
{group_scale}        total = tl.dot({expression}, {activations}, total{precision})
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
'''

UNPACK = '''\
@triton.jit
def unpack(weight, dense, first_row, row_count, k, BLOCK_N: tl.constexpr):
    """`row_count` rows of W from `first_row` on, `[row_count, k]`; dense holds zeros before."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    band = first_row // {height} + tl.program_id(0)
    rows = band * {height} + tl.arange(0, {height})
    places = rows - first_row
    inside = (places >= 0) & (places < row_count)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    for block in range(first, last, {count}):
        at = block + tl.arange(0, {columns}) // {width}
        columns = load_columns(weight, at, last, n, k)
        value = load_blocks(weight, at, last, n, k)
{scale}        there = inside[:, None] & ((at < last) & (columns < k))[None, :]
        to = places.to(tl.int64)[:, None] * k + columns[None, :]
        tl.store(dense + to, value.to(dense.dtype.element_ty), mask=there)
'''


class BlocksLinear(TritonTemplate):
    """For structures of whole blocks: one program a band of blocks and stretch of tokens."""

    name = "blocks"
    reads = "blocks"

    def default(self, spec: KernelSpec, target: Target) -> Schedule:
        """A program for few tokens, or for as many as a matrix instruction likes."""
        wide = spec.dtype == torch.float32
        return Schedule.of(
            {
                "few_m": 16,
                "few_warps": 4,
                "many_m": 32 if wide else 64,
                "many_warps": 4,
                "stages": 2 if wide or target.gpu.vendor == "amd" else 3,
            }
        )

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """More tokens a program, other warps and stages."""
        names = ("few_m", "few_warps", "many_m", "many_warps", "stages")
        for values in VARIATIONS:
            yield dict(zip(names, values, strict=True))

    def launches(self, spec: KernelSpec, schedule: Schedule) -> tuple[Launch, ...]:
        """The same function for few tokens and for many."""
        height = getattr(spec.format.structure, "height", 1)
        few, many, stages = schedule["few_m"], schedule["many_m"], schedule["stages"]
        return (
            Launch("few", "linear", 16, height, few, 0, schedule["few_warps"], stages),
            Launch("many", "linear", None, height, many, 0, schedule["many_warps"], stages),
        )

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Kept blocks are read and multiplied."""
        from sparsecompile.costs import Cost, m

        n, k = weight.shape
        moved = weight.nbytes + m * (n + k) * spec.dtype.itemsize
        return Cost(moved, 2 * m * weight.stored, matrix_kind(spec))

    def loops(
        self, spec: KernelSpec, schedule: Schedule, structure: TritonStructure, values: Values
    ) -> str:
        """Loads of blocks, the loop over them, and `unpack`."""
        height, width = structure.sides(spec.format.structure)
        count = max(1, COLUMNS // width)
        element = ELEMENTS[spec.dtype]
        by_group = by_row = ""
        if values.group:
            places = "rows[:, None], columns[None, :], (rows < n)[:, None]"
            by_group = scaled(f"scales_at(weight, {places}, n, k)", 8)
        elif values.group == 0:
            by_row = scaled("row_scales(weight, rows, rows < n, n, k)[:, None]", 8)
        rounded = spec.activations != "float"
        sizes = {"height": height, "width": width, "count": count, "columns": count * width}
        return "\n\n".join(
            (
                LOAD.format(size=height * width, **sizes),
                LINEAR.format(
                    group_scale=by_group,
                    expression="value" if values.group is None else f"value.to(tl.{element})",
                    activations=f"activations.to(tl.{element})" if rounded else "activations",
                    precision=precision(spec),
                    **sizes,
                ),
                UNPACK.format(scale=by_group or by_row, **sizes),
            )
        )


COMPONENTS = (BlocksLinear(),)
