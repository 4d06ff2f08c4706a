"""FlashAttention: the online softmax over kept tiles only; scores stay in registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING, ClassVar

import torch

from sparsecompile.codegen.triton.attention import softmax, tiles, words
from sparsecompile.codegen.triton.attention.signature import attention_signature
from sparsecompile.codegen.triton.fragment import ELEMENTS
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.signature import Signature
from sparsecompile.codegen.triton.template import TritonTemplate, check_target
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import NoWeight
from sparsecompile.kernels.spec import Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source
from sparsecompile.masks.block_mask import BIASED, FEW_QUERIES, TILE
from sparsecompile.operators.attention.cost import cost_of
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.registry import Registry

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

FEW, MANY = "few", "many"
"""Names of the functions: for masks as words, and as tiles."""
WIDEST = {"nvidia": 512, "amd": 256}
"""Bytes of the widest rows of which tiles fit in registers and shared memory, by vendor."""
WIDEST_STORED = 128
"""Columns of the widest rows of integers, which are in registers as they are and widened."""
NARROWEST = 16
"""The least sides of a product."""
VARIATIONS = (
    (16, 2, 32, 64, 4, 3, 1),
    (16, 8, 64, 32, 4, 2, 4),
    (32, 4, 64, 64, 8, 2, 8),
    (64, 4, 64, 32, 8, 4, 2),
    (16, 4, 32, 32, 2, 4, 4),
)
"""Of a search: rows and warps for few queries; queries, keys and warps for many; stages; programs a
unit."""

HEADS = ((64, 64, 3), (128, 128, 4), (80, 96, 1), (64, 64, 2, True))
"""Widths of keys and of values, groups, and whether there is a cap."""
STORED = (128, 128, 4, False, torch.int8)
"""The same with keys and values that are int8."""

HEAD = '''\
"""{spec}

template: {name}; target: {target}
{schedule}
out = softmax(softcap(q @ k.T * scale) + bias) @ v over the keys that the mask keeps; zeros where
there are none. All sizes but the widths of heads are run-time values.

{launches}

{arguments}
"""

import triton
import triton.language as tl

HEAD_DIM = tl.constexpr({head_dim})  # of queries and keys
HEAD_PADDED = tl.constexpr({head_padded})
VALUE_DIM = tl.constexpr({value_dim})  # of values
VALUE_PADDED = tl.constexpr({value_padded})
GROUPS = tl.constexpr({groups})  # query heads that share a key head
SOFTCAP = tl.constexpr({softcap})
TILE = tl.constexpr({tile})  # queries, and keys, of a tile
BIASED = tl.constexpr({biased})  # kind of a tile in which the bias says which places count
LOG2_E = tl.constexpr(1.4426950408889634)
'''

LAUNCHES = (
    "attend_words takes up to {few_queries} queries: {few_rows} rows a program, {few_warps} warps, "
    "keys split up to {programs} programs. attend_tiles takes any number: {many_queries} queries a "
    "program, {many_keys} keys a pass, {many_warps} warps. Both have {stages} stages."
)
ARGUMENTS = (
    "What is launched takes q `[batch, heads, queries, d]`, k `[batch, heads / groups, keys, d]`, "
    "v `[.., keys, dv]` and out `[batch, heads, queries, dv]`, whose rows are contiguous and begin "
    "where the strides say; mask, a BlockMask's layout as bytes, or None for all keys; bias "
    "`[batch, heads, queries, keys]` or None; k_scale and v_scale `[batch, heads / groups, keys, "
    "1]` where k and v are int8, or None."
)


class FlashAttention(TritonTemplate[AttentionSpec]):
    """Tiles that the mask drops are neither read nor multiplied.

    A key that a query does not attend to takes part with a weight of zero if its tile is kept: as
    in torch, a value that is not a number shows there.

    Sources: FlashAttention-2, arXiv:2307.08691; Flash-Decoding, the split over keys.
    """

    name = "triton_flash"
    operator = AttentionSpec.operator
    usual: ClassVar[Mapping[str, int]] = {"batch": 1, "heads": 32, "keys": 4096}

    def supports(self, spec: AttentionSpec, target: Target, registry: Registry) -> None:
        """Return if the target is a GPU that Triton compiles for and tiles fit in its memories.

        Raises:
            Reject: another device, an old GPU, or heads that are too wide.
        """
        check_target(spec, target)
        widest, fit = _widest(spec), WIDEST[target.gpu.vendor] // spec.dtype.itemsize
        if spec.kv_dtype is not None:
            fit = min(fit, WIDEST_STORED)
            if spec.kv_dtype != torch.int8 or spec.dtype == torch.float32:
                raise Reject(
                    f"keys and values in {spec.kv_dtype} are not read for queries in {spec.dtype}, "
                    "those in int8 are for queries of 16 bits"
                )
        if widest > fit:
            raise Reject(f"{spec.dtype} heads of {widest} do not fit {target.arch}, {fit} do")

    def examples(self, dtype: torch.dtype) -> Sequence[AttentionSpec]:
        """Heads as models have them: narrow, wide, of unequal widths, with a cap, of int8."""
        stored = () if dtype == torch.float32 else (STORED,)
        return tuple(AttentionSpec(dtype, *heads) for heads in (*HEADS, *stored))

    def default(self, spec: AttentionSpec, target: Target) -> Schedule:
        """A row of tiles a program; smaller sides, or more warps, where heads are wide.

        Products of float32 go without matrix instructions, and have all their factors in registers.
        """
        is_exact, is_narrow = spec.dtype == torch.float32, _widest(spec) <= TILE
        # What is widened is in registers twice.
        is_wide = _widest(spec) > 2 * TILE or spec.kv_dtype is not None
        sides = (32, 32) if is_narrow else (16, 16)
        if not is_exact:
            sides = (TILE, TILE if is_narrow else TILE // 2)
        return Schedule.of(
            {
                "few_rows": 16,
                "few_warps": 8 if is_exact or is_wide else 4,
                "many_queries": sides[0],
                "many_keys": sides[1],
                "many_warps": 8 if is_exact or is_wide else 4,
                "programs": 2 * target.gpu.units,
                "stages": 2,
            }
        )

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """Other sides of tiles, warps, stages, and parts of the keys."""
        names = ("few_rows", "few_warps", "many_queries", "many_keys", "many_warps", "stages")
        for *values, programs in VARIATIONS:
            units = programs * target.gpu.units
            yield {**dict(zip(names, values, strict=True)), "programs": units}

    def launches(self, spec: AttentionSpec, schedule: Schedule) -> tuple[Launch, ...]:
        """By the form of the mask, which depends on the number of queries."""
        s = schedule
        few = (TILE, s["few_rows"], s["programs"], s["few_warps"], s["stages"])
        many = (s["many_keys"], s["many_queries"], 0, s["many_warps"], s["stages"])
        return (
            Launch(FEW, "attend_words", FEW_QUERIES, *few),
            Launch(MANY, "attend_tiles", None, *many),
        )

    def signature(self, spec: AttentionSpec, launch: Launch, shape: tuple[int, ...]) -> Signature:
        """With a mask and a bias, and the keys in several parts: what takes most registers."""
        return attention_signature(spec, launch)

    def cost(self, spec: AttentionSpec, schedule: Schedule, weight: NoWeight) -> Cost:
        """What is kept is read and multiplied."""
        cost = cost_of(spec, weight.sizes, weight.share)
        return replace(cost, kind=ELEMENTS[spec.dtype])

    def render(
        self, spec: AttentionSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Constants, and functions that are the same for all specs."""
        choices = dict(schedule.choices)
        head = HEAD.format(
            spec=spec,
            name=self.name,
            target=target,
            schedule=fill(f"schedule: {schedule}", 100),
            launches=fill(LAUNCHES.format(few_queries=FEW_QUERIES, **choices), 100),
            arguments=fill(ARGUMENTS, 100),
            head_dim=spec.head_dim,
            head_padded=_padded(spec.head_dim),
            value_dim=spec.value_dim,
            value_padded=_padded(spec.value_dim),
            groups=spec.groups,
            softcap=spec.softcap,
            tile=TILE,
            biased=BIASED,
        )
        text = "\n\n".join((head, softmax.TEXT, tiles.TEXT, words.TEXT))
        kernels = tuple((each.symbol, each.largest_m) for each in self.launches(spec, schedule))
        name = f"{self.name}_{spec.identifier}_{schedule.tag}"
        return Source(name, self.language, text, kernels)


def _widest(spec: AttentionSpec) -> int:
    return max(_padded(spec.head_dim), _padded(spec.value_dim))


def _padded(width: int) -> int:
    """The power of two that a row of a product is padded to."""
    return max(NARROWEST, 1 << (width - 1).bit_length())


COMPONENTS = (FlashAttention(),)
