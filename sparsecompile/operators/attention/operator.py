"""Attention: the operator of attention, which reads no weight."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecompile.graph.edit import Edit, origins
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.contents import NoWeight, Sample
from sparsecompile.kernels.extern import InlineExtern
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import DenseUse, Problem, rows_of
from sparsecompile.kernels.prologue import rounded_rows
from sparsecompile.operators.attention import ops  # noqa: F401 - those that graphs call
from sparsecompile.operators.attention.asked import asked_for, remember
from sparsecompile.operators.attention.cost import cost_of
from sparsecompile.operators.attention.drawn import drawn
from sparsecompile.operators.attention.kept import KINDS, Kept, Known, Scanned
from sparsecompile.operators.attention.narrowed import Narrowed, kept_detailed, kept_of
from sparsecompile.operators.attention.node import ATTENTION, PRODUCTS, SDPA, attention
from sparsecompile.operators.attention.spec import AttentionSpec
from sparsecompile.operators.operator import Calling, Emitted, Operator, Slots
from sparsecompile.options.options import Options

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

MOST_QUERIES, MOST_KEYS = 1024, 2048
"""What is measured of longer ones: they cost more, but not otherwise."""
AXES = ("batch", "heads", "keys")
MASKS: tuple[Kept, ...] = (
    *KINDS.values(),
    Scanned(adds=True, is_bias=True),
    Known("causal & window(9)", adds=False),
    Known("around(5)", adds=True),
    Known("causal", adds=False, first=True),
    Known("causal", adds=True, first=True),
)
"""What laws try."""
ASKED = ("window(9) + global(2)", "around(5)", "top_blocks(0.3)", "clusters(4)")
"""What laws ask for beside them."""
TYPICAL_KEYS = 512
"""Where the number of keys varies."""


class Attention(Operator[AttentionSpec]):
    """`softmax(softcap(q @ k.T * scale) + mask) @ v`; see `AttentionSpec`."""

    name = AttentionSpec.operator
    pattern = ATTENTION
    op = "sparsecompile::attention"

    def problem(self, match: Match, edit: Edit, options: Options) -> Problem[AttentionSpec]:
        """By the number of queries; that of keys, where it varies, is a typical one."""
        q, k, v = (edit.value(match[name]) for name in "qkv")
        rows, is_dynamic = rows_of(q[0, 0])
        keys = k.shape[2] if isinstance(k.shape[2], int) else TYPICAL_KEYS
        batch = q.shape[0] if isinstance(q.shape[0], int) else 1
        kept = kept_of(match, edit)
        places = kept.places(min(rows[-1], MOST_QUERIES), min(keys, MOST_KEYS))
        return Problem(
            spec=spec_of(q, k, v, softcap=match["softcap"] != 0),
            shape=(batch, q.shape[1], min(keys, MOST_KEYS)),
            rows=tuple(dict.fromkeys(min(m, MOST_QUERIES) for m in rows)),
            is_dynamic=is_dynamic,
            dense=DenseUse.NEVER if match["pattern"] else DenseUse.ALONE,
            tune=options.tune,
            density=round(float(places.float().mean()), 2),
            layout_rows=tuple(dict.fromkeys(min(m, MOST_QUERIES) for m in rows)),
            axes=AXES,
            details=(("spelling", match["spelling"]), *kept.details),
        )

    def emit(
        self,
        match: Match,
        problem: Problem[AttentionSpec],
        call: Calling,
        slots: Slots,
        edit: Edit,
    ) -> Emitted:
        """`attention(...) -> sparsecompile::attention(...)`, its mask as the tiles it keeps."""
        library = call.kernel.template
        if isinstance(library, InlineExtern):
            function, args = library.call(problem, match.captured)
        else:
            blocks, bias = kept_of(match, edit).emit(match, edit)
            scale, softcap = float(match["scale"]), float(match["softcap"])
            given, scales = (match[name] for name in "qkv"), (match["k_scale"], match["v_scale"])
            args = (*given, blocks, bias, scale, softcap, call.key, *scales)
            function = call.op
        new = edit.call(function, args, before=match.node, origins=origins(match.node))
        edit.replace(match.node, new)
        return Emitted(new)

    def restore(
        self, match: Match, problem: Problem[AttentionSpec], slots: Slots, edit: Edit
    ) -> None:
        """The node itself computes what the model does; a mask that keeps all keys is none."""
        if match["mask"] is not None and kept_of(match, edit).kind == "none":
            match.node.update_arg(ATTENTION.parameters.index("mask"), None)

    def sample(
        self, match: Match, problem: Problem[AttentionSpec], edit: Edit
    ) -> Callable[[], Sample]:
        """Its sizes."""
        return lambda: _sample(problem)

    def examples(self) -> Sequence[tuple[Problem[AttentionSpec], Sample]]:
        """Every kind of mask, dtypes, heads and caches in turn."""
        found = []
        dtypes = itertools.cycle((torch.float32, torch.bfloat16, torch.float16))
        heads = itertools.cycle(((16, 16, 1), (64, 32, 3), (40, 40, 2)))
        asked = [remember(asked_for(text)) for text in ASKED]
        narrowed = [Narrowed(own, pattern) for own in MASKS[:2] for pattern in asked]
        kept = (*MASKS, *narrowed)
        cases = (*((each, None) for each in kept), *((each, torch.int8) for each in MASKS))
        for (each, stored), dtype, sizes in zip(cases, dtypes, heads, strict=False):
            width, values, groups = sizes
            spelling = PRODUCTS if each.kind.endswith(", added") else SDPA
            spec = AttentionSpec(dtype, width, values, groups, kv_dtype=stored)
            problem = Problem(
                spec=spec,
                shape=(2, 2 * groups, 70),
                rows=(1, 7, 65),
                is_dynamic=True,
                dense=DenseUse.NEVER,
                tune="off",
                density=1.0,
                axes=AXES,
                details=(("spelling", spelling), *each.details),
            )
            found.append((problem, _sample(problem)))
        return found

    def example(
        self, problem: Problem[AttentionSpec], rows: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Q `[batch, heads, rows, d]`, k, v, a mask as `Kept.example` has it, or `[0]`; scales."""
        spec, (batch, heads, keys) = problem.spec, problem.shape
        kv_heads, keys = heads // spec.groups, max(keys, rows)
        shapes = (
            (batch, heads, rows, spec.head_dim),
            (batch, kv_heads, keys, spec.head_dim),
            (batch, kv_heads, keys, spec.value_dim),
        )
        q, k, v = (torch.randn(s, generator=generator).to(spec.dtype) for s in shapes)
        mask = kept_detailed(dict(problem.details)).example(rows, keys, spec.dtype)
        if spec.kv_dtype is None:
            return q, k, v, mask
        (k, k_scale), (v, v_scale) = rounded_rows(k), rounded_rows(v)
        return q, k.to(spec.kv_dtype), v.to(spec.kv_dtype), mask, k_scale, v_scale

    def run(
        self,
        problem: Problem[AttentionSpec],
        inputs: Sequence[Tensor],
        weight: Tensor,
        kernel: Kernel[AttentionSpec],
    ) -> Callable[[], Tensor]:
        """The op, with the kept tiles at hand; or the library call."""
        q, k, v, mask, *scales = inputs
        scale, softcap = _scales(problem.spec)
        if isinstance(kernel.template, InlineExtern):
            given = {"q": q, "k": k, "v": v, "scale": scale, "softcap": softcap}
            return kernel.template.run(problem, given)
        blocks, bias = kept_detailed(dict(problem.details)).made(q, k, mask)
        blocks = None if blocks is None else blocks.to(q.device)
        op = torch.ops.sparsecompile.attention
        return partial(op, q, k, v, blocks, bias, scale, softcap, kernel.key, *scales)

    def run_dense(
        self, problem: Problem[AttentionSpec], inputs: Sequence[Tensor], weight: Tensor
    ) -> Callable[[], Tensor]:
        """As the model computes it; what a pattern keeps is at hand as a mask."""
        q, k, v, mask, *scales = inputs
        details = dict(problem.details)
        given, causal = kept_detailed(details).baseline(q, k, mask)
        scale, softcap = _scales(problem.spec)
        spelling = details["spelling"]
        return partial(attention, q, k, v, given, scale, softcap, causal, spelling, "", *scales)

    def dense_cost(self, problem: Problem[AttentionSpec]) -> Cost:
        """q, k, v and what is returned once, and two products with every key."""
        return cost_of(problem.spec, dict(zip(problem.axes, problem.shape, strict=True)), 1.0)

    def facts(self, problem: Problem[AttentionSpec]) -> Mapping[str, Any]:
        """Which keys count, and their share."""
        kept = kept_detailed(dict(problem.details))
        return {"mask": kept.kind, "kept": problem.density, "picture": drawn(problem, kept)}


def spec_of(q: Tensor, k: Tensor, v: Tensor, *, softcap: bool) -> AttentionSpec:
    """The spec for tensors of these shapes."""
    kv_dtype = None if k.dtype == q.dtype else k.dtype
    groups = q.shape[1] // k.shape[1]
    return AttentionSpec(q.dtype, q.shape[3], v.shape[3], groups, softcap, kv_dtype)


def _sample(problem: Problem[AttentionSpec]) -> Sample:
    return NoWeight(dict(zip(problem.axes, problem.shape, strict=True)), problem.density)


def _scales(spec: AttentionSpec) -> tuple[float, float]:
    """What scores are scaled by, and capped at, in measurements."""
    return spec.head_dim**-0.5, 30.0 if spec.softcap else 0.0


COMPONENTS = (Attention(),)
