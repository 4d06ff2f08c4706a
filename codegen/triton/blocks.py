"""The blocks template: kept blocks are gathered and multiplied, empty ones cost nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from sparsecompile.codegen.triton.decoding import decode, is_decoded
from sparsecompile.codegen.triton.fragment import ELEMENTS, TritonStructure
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.linear import (
    TritonLinear,
    matrix_kind,
    precision,
    scaled,
)
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

COLUMNS = 64
"""Columns of W that a pass takes at least: of several blocks where these are narrower."""
ROWS = 16
"""Rows of W that a matrix instruction takes at least: lower blocks are padded."""

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
def band_rows(band, n):
    """Rows of W of a band of blocks: `[{tall}]`{padded_rows}."""
{rows}

@triton.jit
def blocks_of_columns(block, last):
    """Which block each column of a pass is of, from `block` on: `[{columns}]`{padded_columns}."""
{blocks}

@triton.jit
def load_columns(weight, at, last, n, k):
    """Columns of the blocks `at`, `[{columns}]`: whole blocks, so that x is read in stretches."""
    col = col_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begins = tl.load(col + at, mask=at < last, other=0) * {width}
    columns = begins + tl.arange(0, {columns}) % {width}
    return {stretches}


@triton.jit
def load_blocks(weight, at, last, n, k):
    """The same blocks side by side: `[{tall}, {columns}]`."""
    slots = at.to(tl.int64) * {size} + tl.arange(0, {columns}) % {width}
    slots = slots[None, :] + tl.arange(0, {tall})[:, None] * {width}
    there = (at < last)[None, :]{inside}
    return values_at(values_part(weight, n, k), slots, there)
'''

LINEAR = '''\
@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """A band of blocks times BLOCK_M tokens, y^T = W x^T: {count} kept blocks a pass."""
    band = tl.program_id(0)
    rows = band_rows(band, n)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_rows = x + tokens.to(tl.int64) * x_stride
    total = tl.zeros(({tall}, BLOCK_M), tl.float32)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    for block in range(first, last, {count}):
        at = blocks_of_columns(block, last)
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
    rows = band_rows(band, n)
    places = rows - first_row
    inside = (places >= 0) & (places < row_count)
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    first, last = tl.load(crow + band), tl.load(crow + band + 1)
    step = tl.num_programs(1) * {count}
    for block in range(first + tl.program_id(1) * {count}, last, step):
        at = blocks_of_columns(block, last)
        columns = load_columns(weight, at, last, n, k)
        value = load_blocks(weight, at, last, n, k)
{scale}        there = inside[:, None] & ((at < last) & (columns < k))[None, :]
        to = places.to(tl.int64)[:, None] * k + columns[None, :]
        tl.store(dense + to, value.to(dense.dtype.element_ty), mask=there)
'''


@dataclass(frozen=True)
class Pass:
    """What one pass of the loop multiplies: whole blocks, padded to what Triton can hold.

    Attributes:
        height: of a block.
        width: of a block.
    """

    height: int
    width: int

    @classmethod
    def of(cls, spec: KernelSpec) -> Pass:
        """For the blocks of a spec."""
        structure: Any = spec.format.structure
        return cls(structure.height, structure.width)

    @property
    def tall(self) -> int:
        """Rows of W, those that pad a band included."""
        return max(ROWS, _power_of_two(self.height))

    @property
    def columns(self) -> int:
        """Columns of W, those that pad included."""
        return max(COLUMNS, _power_of_two(self.width))

    @property
    def count(self) -> int:
        """Blocks side by side."""
        return self.columns // self.width

    @property
    def padding(self) -> Fraction:
        """What is multiplied for each value of W."""
        return Fraction(self.tall * self.columns, self.height * self.count * self.width)

    def render(self) -> str:
        """The functions that say what is where, and load it."""
        tall, columns, width, used = self.tall, self.columns, self.width, self.count * self.width
        rows = f"    return band * {self.height} + tl.arange(0, {tall})\n"
        blocks = f"    return block + tl.arange(0, {columns}) // {width}\n"
        padded_rows = padded_columns = inside = ""
        if self.height < tall:
            padded_rows = f"; beyond its {self.height} they are n, outside"
            inside = f" & (tl.arange(0, {tall}) < {self.height})[:, None]"
            rows = (
                f"    row = tl.arange(0, {tall})\n"
                f"    return tl.where(row < {self.height}, band * {self.height} + row, n)\n"
            )
        if used < columns:
            padded_columns = f"; beyond {used} it is last, which is none"
            blocks = (
                f"    column = tl.arange(0, {columns})\n"
                f"    return tl.where(column < {used}, block + column // {width}, last)\n"
            )
        stretches = "columns"
        if width & (width - 1) == 0:
            stretches = f"tl.max_contiguous(tl.multiple_of(columns, {width}), {width})"
        return LOAD.format(
            tall=tall,
            columns=columns,
            width=width,
            size=self.height * width,
            rows=rows,
            padded_rows=padded_rows,
            blocks=blocks,
            padded_columns=padded_columns,
            inside=inside,
            stretches=stretches,
        )


def _power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


class BlocksLinear(TritonLinear):
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
        height = Pass.of(spec).height
        few, many, stages = schedule["few_m"], schedule["many_m"], schedule["stages"]
        return (
            Launch("few", "linear", 16, height, few, 0, schedule["few_warps"], stages),
            Launch("many", "linear", None, height, many, 0, schedule["many_warps"], stages),
        )

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Kept blocks are read, and multiplied with what pads them."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        n, k = weight.shape
        padding = Pass.of(spec).padding
        moved = weight.nbytes + m * (n + k) * spec.dtype.itemsize
        return Cost(moved, 2 * m * weight.stored * padding, matrix_kind(spec))

    def loops(self, spec: KernelSpec, schedule: Schedule, structure: TritonStructure) -> str:
        """Loads of blocks, the loop over them, and `unpack`."""
        part, element = Pass.of(spec), ELEMENTS[spec.dtype]
        group, by_group, by_row = spec.coding.group, "", ""
        places = "rows[:, None], columns[None, :], (rows < n)[:, None], n, k"
        if is_decoded(spec.coding):
            by_group = decode(spec.coding, "at", places, 8)
        elif group:
            by_group = scaled(f"scales_at(weight, {places})", 8)
        elif group == 0:
            by_row = scaled("row_scales(weight, rows, rows < n, n, k)[:, None]", 8)
        rounded, is_float = spec.activations != "float", spec.coding.kind == "float"
        return "\n\n".join(
            (
                part.render(),
                LINEAR.format(
                    group_scale=by_group,
                    expression="value" if is_float else f"value.to(tl.{element})",
                    activations=f"activations.to(tl.{element})" if rounded else "activations",
                    precision=precision(spec),
                    tall=part.tall,
                    count=part.count,
                ),
                UNPACK.format(scale=by_group or by_row, height=part.height, count=part.count),
            )
        )


COMPONENTS = (BlocksLinear(),)
