"""The tiles template: W is put together in registers, tile by tile, and multiplied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from sparsecompile.codegen.triton.decoding import decode, group_of
from sparsecompile.codegen.triton.fragment import ELEMENTS, TILE, TritonStructure
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.linear import (
    TritonLinear,
    matrix_kind,
    precision,
    scaled,
)
from sparsecompile.codegen.triton.tiles_search import variations
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

ROW = '''\
@triton.jit
def linear_row(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times one token, without matrix instructions; k is split in SPLITS."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1)
    inside = rows < n
    x_row = x + token.to(tl.int64) * x_stride
    total = tl.zeros((BLOCK_N, {tile}), tl.float32)
    tiles = tl.cdiv(k, {tile})
    share = tl.cdiv(tiles, SPLITS)
    begin = tl.program_id(2) * share
    for tile in range(begin, tl.minimum(begin + share, tiles)):
        columns = tile * {tile} + tl.arange(0, {tile})
        activations = tl.load(x_row + columns, mask=columns < k, other=0.0)
        w = load_weight(weight, rows, inside, tile, n, k)
        total += w.to(tl.float32) * activations.to(tl.float32)[None, :]
    tokens = token + tl.arange(0, 1)
    total = tl.sum(total, 1)[:, None]
    if SPLITS == 1:
        finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
    else:
        store_part(total, y, rows, tokens, m, n)
'''

LINEAR = '''\
@triton.jit
def linear(
    x, x_scales, weight, bias, operand0, operand1, y, m, n, k, x_stride,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SPLITS: tl.constexpr,
):
    """BLOCK_N rows of W times BLOCK_M tokens, y^T = W x^T; k is split in SPLITS.

    W is the first operand: on sm_90 it then goes from registers to the matrix instruction.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n
    x_rows = x + tokens.to(tl.int64) * x_stride
    total = tl.zeros((BLOCK_N, BLOCK_M), {sum_type})
    tiles = tl.cdiv(k, {tile})
    share = tl.cdiv(tiles, SPLITS)
    begin = tl.program_id(2) * share
    for tile in range(begin, tl.minimum(begin + share, tiles)):
        columns = tile * {tile} + tl.arange(0, {tile})
        there = (columns < k)[:, None] & (tokens < m)[None, :]
        activations = tl.load(x_rows[None, :] + columns[:, None], mask=there, other=0.0)
        w = load_weight(weight, rows, inside, tile, n, k)
{product}
    if SPLITS == 1:
        finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
    else:
        store_part(total, y, rows, tokens, m, n)
'''

PARTS = '''\
@triton.jit
def store_part(total, parts, rows, tokens, m, n):
    """The sum over a part of k, float32: parts is `[SPLITS, m, n]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    part = tl.program_id(2).to(tl.int64) * m + tokens
    tl.store(parts + part[None, :] * n + rows[:, None], total.to(tl.float32), mask=there)


@triton.jit
def add_parts(
    parts, x_scales, weight, bias, operand0, operand1, y, m, n, k,
    BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
):
    """The parts of k are added in their order, whichever was ready first."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(1) + tl.arange(0, 1)
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    total = tl.zeros((BLOCK_N, 1), tl.float32)
    for split in range(SPLITS):
        part = tl.cast(split, tl.int64) * m + tokens
        total += tl.load(parts + part[None, :] * n + rows[:, None], mask=there, other=0.0)
    finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k)
'''

UNPACK = '''\
@triton.jit
def unpack(weight, dense, first, count, k, BLOCK_N: tl.constexpr):
    """`count` rows of W from `first` on, `[count, k]`, with their scales."""
    n = tl.load(weight.to(tl.pointer_type(tl.int64)))
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, inside = first + places, places < count
    tile = tl.program_id(1)
    columns = tile * {tile} + tl.arange(0, {tile})
    value = load_tile(weight, rows, inside, tile, n, k)
{scale}    there = inside[:, None] & (columns < k)[None, :]
    at = places.to(tl.int64)[:, None] * k + columns[None, :]
    tl.store(dense + at, value.to(dense.dtype.element_ty), mask=there)
'''

WEIGHT = '''\
@triton.jit
def load_weight(weight, rows, inside, tile, n, k):
    """One tile of some rows as it is multiplied."""
    value = load_tile(weight, rows, inside, tile, n, k)
{scale}    return {expression}
'''


class TilesLinear(TritonLinear):
    """For structures whose rows are read tile by tile: any structure, any m.

    Tensor cores multiply zeros as fast as values: what is saved is memory traffic, which is what a
    linear with few rows takes.
    """

    name = "tiles"
    reads = "tiles"

    def default(self, spec: KernelSpec, target: Target) -> Schedule:
        """Half a tile of rows for many tokens; for few, k is split until all units have work.

        What takes more registers gets more threads: float32, which is multiplied without matrix
        instructions, and codes, most of which have scales; or fewer values: codes that are more
        than integers times scales.
        """
        wide = spec.dtype == torch.float32
        warps = 8 if wide or spec.coding.kind != "float" else 4
        return Schedule.of(
            {
                "row_n": 16,
                "row_warps": 4,
                "few_n": 32 if wide else 64,
                "few_m": 16,
                "few_warps": 4,
                "some_n": 64,
                "some_m": 32 if wide else 64,
                "some_warps": warps,
                "many_n": 64 if wide or spec.coding.is_decoded else 128,
                "many_m": 32 if wide else 64,
                "many_warps": 8,
                "programs": 2 * target.gpu.units,
                "stages": 2 if wide or target.gpu.vendor == "amd" else 3,
            }
        )

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """Other sides of tiles, warps, stages, and parts of k."""
        for choices in variations():
            yield {**choices, "programs": choices["programs"] * target.gpu.units}

    def launches(self, spec: KernelSpec, schedule: Schedule) -> tuple[Launch, ...]:
        """One token without matrix instructions, then ever larger tiles."""
        s = schedule

        def launch(symbol: str, function: str, largest: int | None, block_m: int) -> Launch:
            programs = 0 if largest is None else s["programs"]
            warps = s[f"{symbol}_warps"]
            block_n = s[f"{symbol}_n"]
            return Launch(symbol, function, largest, block_n, block_m, programs, warps, s["stages"])

        return (
            launch("row", "linear_row", 1, 1),
            launch("few", "linear", 16, s["few_m"]),
            launch("some", "linear", 128, s["some_m"]),
            launch("many", "linear", None, s["many_m"]),
        )

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        """The layout is read; everything, zeros included, is multiplied."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        n, k = weight.shape
        kind = "int8" if self._as_integers(spec) else matrix_kind(spec)
        return Cost(weight.nbytes + m * (n + k) * spec.dtype.itemsize, 2 * m * n * k, kind)

    def _as_integers(self, spec: KernelSpec) -> bool:
        """Whether integers are multiplied as such: scales then have to fit whole tiles."""
        coding = spec.coding
        return spec.activations != "float" and coding.is_scaled and (coding.group or 0) % TILE == 0

    def loops(self, spec: KernelSpec, schedule: Schedule, structure: TritonStructure) -> str:
        """`load_weight`, the loops over tiles, what adds the parts, and `unpack`."""
        as_integers, coding, group = self._as_integers(spec), spec.coding, group_of(spec.coding)
        element = ELEMENTS[spec.dtype]
        stays = as_integers or coding.kind == "float"
        multiplied = "value" if stays else f"value.to(tl.{element})"
        places = f"rows, inside, tile * {TILE}, n, k, {TILE}"
        by_group = f"scales_in(weight, {places})"
        by_row = "row_scales(weight, rows, inside, n, k)[:, None]"
        grouped = decode(coding, "in", places) or scaled(by_group if group else "")
        exact = scaled(by_row) if group == 0 else grouped
        texts = [WEIGHT.format(scale="" if as_integers else grouped, expression=multiplied)]
        how = ", out_dtype=tl.int32" if as_integers else precision(spec)
        product = f"        total = tl.dot(w, activations, total{how})"
        row = ROW
        if as_integers and group:
            # Without matrix instructions there is nothing to gain from integers.
            row = ROW.replace("load_weight", "load_scaled")
            load_scaled = WEIGHT.replace("load_weight", "load_scaled")
            texts.append(load_scaled.format(scale=grouped, expression="value"))
            product = (
                "        # One scale for all columns of the tile.\n"
                f"        scales = {by_group}\n"
                f"        total += tl.dot(w, activations{how}).to(tl.float32) * scales"
            )
        elif spec.activations != "float" and not as_integers:
            product = product.replace("activations", f"activations.to(tl.{element})")
        sum_type = "tl.int32" if as_integers and not group else "tl.float32"
        texts += [
            PARTS,
            row.format(tile=TILE),
            LINEAR.format(tile=TILE, sum_type=sum_type, product=product),
            UNPACK.format(tile=TILE, scale=exact),
        ]
        return "\n\n".join(texts)


class ScatteredLinear(TilesLinear):
    """For structures whose tiles take a load of its own for every value.

    An address a value takes registers: tiles are of fewer values a thread.
    """

    name = "scattered"
    reads = "scattered"

    def default(self, spec: KernelSpec, target: Target) -> Schedule:
        """A half or a quarter of the values a thread."""
        is_narrow = spec.dtype != torch.float32 and spec.coding.kind == "float"
        rows = 32 if is_narrow else 16
        some = rows if spec.coding.is_decoded else 2 * rows
        smaller = {"few_n": rows, "some_n": some, "some_warps": 8, "many_n": some}
        return Schedule.of({**dict(super().default(spec, target).choices), **smaller})

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """Tiles of half the height."""
        for choices in super().variations(target):
            sides = {name: choices[name] // 2 for name in ("few_n", "some_n", "many_n")}
            yield {**choices, **{name: max(side, 16) for name, side in sides.items()}}


COMPONENTS = (TilesLinear(), ScatteredLinear())
