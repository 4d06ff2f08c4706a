"""The rows template: each row gathers the activations of its kept columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sparsecompile.codegen.triton.decoding import decode, is_decoded
from sparsecompile.codegen.triton.fragment import TritonStructure
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.linear import TritonLinear, scaled
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

STEP = 64
"""Slots of a row that a pass takes."""
GATHER_OPERATIONS = 8
"""A multiply-add with a gathered load takes the issue slots of four."""

VARIATIONS = (
    (1, 1, 1, 8, 4),
    (2, 2, 2, 8, 4),
    (8, 4, 2, 16, 8),
    (8, 8, 4, 4, 4),
    (16, 8, 8, 4, 8),
)
"""Of a search: rows of W and warps for one token; rows, tokens and warps for more."""

LINEAR = '''\
@triton.jit
def load_slots(weight, rows, slots, there, n, k):
    """Column and value of some slots of some rows."""
    col = col_part(weight, n, k).to(tl.pointer_type(tl.int32))
    columns = tl.load(col + slots, mask=there, other=0)
    value = values_at(values_part(weight, n, k), slots, there)
{group_scale}    return columns, value


@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times BLOCK_M tokens: {step} kept columns of every row a pass."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    x_rows = x + tokens.to(tl.int64) * x_stride
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begin = tl.load(crow + rows, mask=rows < n, other=0)
    end = tl.load(crow + rows + 1, mask=rows < n, other=0)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for first in range(0, tl.max(end - begin, 0), {step}):
        slots = (begin + first)[:, None] + tl.arange(0, {step})[None, :]
        kept = slots < end[:, None]
        columns, w = load_slots(weight, rows, slots, kept, n, k)
        there = kept[:, :, None] & (tokens < m)[None, None, :]
        places = x_rows[None, None, :] + columns[:, :, None]
        activations = tl.load(places, mask=there, other=0.0).to(tl.float32)
        total += tl.sum(w.to(tl.float32)[:, :, None] * activations, 1)
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)


@triton.jit
def unpack(weight, dense, first_row, row_count, k, BLOCK_N: tl.constexpr):
    """`row_count` rows of W from `first_row` on, `[row_count, k]`; dense holds zeros before."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = first_row + places
    crow = crow_part(weight, n, k).to(tl.pointer_type(tl.int32))
    begin = tl.load(crow + rows, mask=places < row_count, other=0)
    end = tl.load(crow + rows + 1, mask=places < row_count, other=0)
    step = tl.num_programs(1) * {step}
    for first in range(tl.program_id(1) * {step}, tl.max(end - begin, 0), step):
        slots = (begin + first)[:, None] + tl.arange(0, {step})[None, :]
        kept = slots < end[:, None]
        columns, value = load_slots(weight, rows, slots, kept, n, k)
{row_scale}        at = places.to(tl.int64)[:, None] * k + columns
        tl.store(dense + at, value.to(dense.dtype.element_ty), mask=kept)
'''


class RowsLinear(TritonLinear):
    """For structures that list the columns of every row: a gather, without matrix instructions."""

    name = "rows"
    reads = "rows"

    def default(self, spec: KernelSpec, target: Target) -> Schedule:
        """Few rows of W a program: rows are of different lengths."""
        rows = {"row_n": 4, "row_warps": 4, "some_n": 4, "some_m": 8, "some_warps": 4}
        return Schedule.of({**rows, "stages": 2})

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """Other numbers of rows, tokens and warps a program."""
        names = ("row_n", "row_warps", "some_n", "some_m", "some_warps")
        for values in VARIATIONS:
            yield dict(zip(names, values, strict=True))

    def launches(self, spec: KernelSpec, schedule: Schedule) -> tuple[Launch, ...]:
        """One token, or a few a program."""
        s, stages = schedule, schedule["stages"]
        return (
            Launch("row", "linear", 1, s["row_n"], 1, 0, s["row_warps"], stages),
            Launch("some", "linear", None, s["some_n"], s["some_m"], 0, s["some_warps"], stages),
        )

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """Kept values and their columns are read; each takes a load of x for every token."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        n, k = weight.shape
        moved = weight.nbytes + m * (n + k) * spec.dtype.itemsize
        return Cost(moved, GATHER_OPERATIONS * m * weight.stored, "float32")

    def loops(self, spec: KernelSpec, schedule: Schedule, structure: TritonStructure) -> str:
        """The gather and `unpack`."""
        group, by_group, by_row = spec.coding.group, "", ""
        places = "rows[:, None], columns, there & (rows < n)[:, None], n, k"
        if is_decoded(spec.coding):
            by_group = decode(spec.coding, "at", places)
        elif group:
            by_group = scaled(f"scales_at(weight, {places})")
        elif group == 0:
            by_row = scaled("row_scales(weight, rows, places < row_count, n, k)[:, None]", 8)
        return LINEAR.format(step=STEP, group_scale=by_group, row_scale=by_row)


COMPONENTS = (RowsLinear(),)
