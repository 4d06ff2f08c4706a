"""Bag: the operator, its node, and its op, which calls what the entry was told of."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile import Call, Edit, Format, Match, Operator, Options, origins, weight_reader
from sparsecompile.formats.names import format_of
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import DenseUse, Problem, rows_of
from sparsecompile.kernels.spec import Spec
from sparsecompile.operators.operator import Calling, Emitted, Slots

KERNELS: dict[int, Any] = {}
"""C functions by keys of kernels."""


@dataclass(frozen=True)
class BagSpec(Spec):
    """`y[b] = sum of W[ids[b, :]]`."""

    operator: ClassVar[str] = "bag"
    format: Format
    dtype: torch.dtype

    def __str__(self) -> str:
        """`bag columns/float float32`."""
        return f"{self.operator} {self.format} {str(self.dtype).removeprefix('torch.')}"


@weight_reader
def packed_bag(ids: Tensor, weight: Tensor, format: str) -> Tensor:
    """The definition: `ids` `[..., bag]`, `weight` `[n, k]` dense."""
    return F.embedding(ids, format_of(format).pack(weight).unpack()).sum(-2)


@torch.library.custom_op("sparse_columns::bag", mutates_args=())
def bag(ids: Tensor, weight: Tensor, k: int, kernel: int) -> Tensor:
    """`[..., k]`; `weight` is a layout, or the dense table while that fits none."""
    if weight.dtype != torch.uint8:
        return F.embedding(ids, weight).sum(-2)
    ids = ids.long().contiguous()
    out = torch.empty(*ids.shape[:-1], k)
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (weight, ids, out))
    bags = out.numel() // k if k else 0
    KERNELS[kernel](*pointers, ctypes.c_int64(bags), ctypes.c_int64(ids.shape[-1]))
    return out


@bag.register_fake
def _(ids: Tensor, weight: Tensor, k: int, kernel: int) -> Tensor:
    return ids.new_empty((*ids.shape[:-1], k), dtype=torch.float32)


class Bag(Operator[BagSpec]):
    """`sum(embedding(ids, W), -2)`."""

    name = BagSpec.operator
    pattern = Call((packed_bag,), ("ids", "weight", "format"))
    op = "sparse_columns::bag"

    def spec(self, format: Format, dtype: torch.dtype) -> BagSpec:
        """The only one."""
        return BagSpec(format, dtype)

    def problem(self, match: Match, edit: Edit, options: Options) -> Problem[BagSpec]:
        """The dense table has to be all or nothing: the op reads one of the two."""
        weight = edit.value(match["weight"])
        rows, is_dynamic = rows_of(edit.value(match["ids"]))
        spec = BagSpec(format_of(match["format"]), weight.dtype)
        shape = (weight.shape[0], weight.shape[1])
        return Problem(spec, shape, rows, is_dynamic, DenseUse.ALONE, options.tune, 1.0)

    def emit(
        self, match: Match, problem: Problem[BagSpec], call: Calling, slots: Slots, edit: Edit
    ) -> Emitted:
        """The op."""
        weight = slots.packed(match["weight"], problem.spec.format, call.kernel)
        args = (match["ids"], weight, problem.shape[1], call.key)
        value = edit.value(match.node)
        new = edit.call(call.op, args, before=match.node, value=value, origins=origins(match.node))
        edit.replace(match.node, new)
        return Emitted(new, weight)

    def restore(self, match: Match, problem: Problem[BagSpec], slots: Slots, edit: Edit) -> None:
        """The model's own two calls."""
        rows = edit.call(F.embedding, (match["ids"], match["weight"]), before=match.node)
        edit.replace(match.node, edit.call(torch.sum, (rows, -2), before=match.node))

    def example(
        self, problem: Problem[BagSpec], rows: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Bags of four."""
        return (torch.randint(problem.shape[0], (rows, 4), generator=generator),)

    def run(
        self,
        problem: Problem[BagSpec],
        inputs: Sequence[Tensor],
        weight: Tensor,
        kernel: Kernel[BagSpec],
    ) -> Callable[[], Tensor]:
        """The op."""
        return partial(bag, inputs[0], weight, problem.shape[1], kernel.key)

    def run_dense(
        self, problem: Problem[BagSpec], inputs: Sequence[Tensor], weight: Tensor
    ) -> Callable[[], Tensor]:
        """What the model computes."""
        return lambda: F.embedding(inputs[0], weight).sum(-2)

    def dense_cost(self, problem: Problem[BagSpec]) -> Any:
        """Four rows a bag."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        return Cost(5 * m * problem.shape[1] * problem.spec.dtype.itemsize, m)

    def facts(self, problem: Problem[BagSpec]) -> Mapping[str, Any]:
        """The format."""
        return {"format": str(problem.spec.format)}


COMPONENTS = (Bag(),)
