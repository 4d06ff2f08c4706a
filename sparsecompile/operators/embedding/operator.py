"""Embedding: the operator of packed embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.formats.names import format_of
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit, origins
from sparsecompile.graph.pattern import Match
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.problem import DenseUse, Problem, rows_of
from sparsecompile.operators.embedding.packed import PACKED_EMBEDDING
from sparsecompile.operators.embedding.spec import EmbeddingSpec
from sparsecompile.operators.operator import Calling, Emitted, Operator, Slots
from sparsecompile.options.options import Options

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


class Embedding(Operator[EmbeddingSpec]):
    """`y = W[ids]`; reads the layout that a head which is tied to it reads."""

    name = EmbeddingSpec.operator
    pattern = PACKED_EMBEDDING
    op = "sparsecompile::embedding"
    follows = True

    def spec(self, format: Format, dtype: torch.dtype) -> EmbeddingSpec:
        """The only one."""
        return EmbeddingSpec(format, dtype)

    def problem(self, match: Match, edit: Edit, options: Options) -> Problem[EmbeddingSpec]:
        """Without a dense table, of which rows are read as they are."""
        weight = edit.value(match["weight"])
        rows, is_dynamic = rows_of(edit.value(match["ids"]).unsqueeze(-1))
        (name,) = origins(match.node)
        survey = edit.considered[name].survey
        return Problem(
            spec=EmbeddingSpec(format_of(match["format"]), weight.dtype),
            shape=(weight.shape[0], weight.shape[1]),
            rows=rows,
            is_dynamic=is_dynamic,
            dense=DenseUse.NEVER,
            tune=options.tune,
            density=round(1 - survey.zeros, 2) if survey is not None else 1.0,
        )

    def emit(
        self, match: Match, problem: Problem[EmbeddingSpec], call: Calling, slots: Slots, edit: Edit
    ) -> Emitted:
        """`packed_embedding(...) -> sparsecompile::embedding(...)`."""
        spec = problem.spec
        weight = slots.packed(match["weight"], spec.format, call.kernel)
        args = (match["ids"], weight, *problem.shape, spec.dtype, call.key)
        names, value = origins(match.node), edit.value(match.node)
        new = edit.call(call.op, args, before=match.node, value=value, origins=names)
        edit.replace(match.node, new)
        return Emitted(new, weight)

    def restore(
        self, match: Match, problem: Problem[EmbeddingSpec], slots: Slots, edit: Edit
    ) -> None:
        """`packed_embedding(ids, weight) -> embedding(ids, weight)`."""
        args, names = (match["ids"], match["weight"]), origins(match.node)
        new = edit.call(F.embedding, args, before=match.node, origins=names)
        edit.replace(match.node, new)

    def example(
        self, problem: Problem[EmbeddingSpec], rows: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """`ids` `[rows]` int64."""
        return (torch.randint(max(problem.shape[0], 1), (rows,), generator=generator),)

    def run(
        self,
        problem: Problem[EmbeddingSpec],
        inputs: Sequence[Tensor],
        weight: Tensor,
        kernel: Kernel[EmbeddingSpec],
    ) -> Callable[[], Tensor]:
        """The op."""
        op = torch.ops.sparsecompile.embedding
        return partial(op, inputs[0], weight, *problem.shape, problem.spec.dtype, kernel.key)

    def run_dense(
        self, problem: Problem[EmbeddingSpec], inputs: Sequence[Tensor], weight: Tensor
    ) -> Callable[[], Tensor]:
        """`embedding(ids, weight)`."""
        return partial(F.embedding, inputs[0], weight)

    def dense_cost(self, problem: Problem[EmbeddingSpec]) -> Cost:
        """A row of the table and of y for each id."""
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        return Cost(2 * m * problem.shape[1] * problem.spec.dtype.itemsize, m)

    def facts(self, problem: Problem[EmbeddingSpec]) -> Mapping[str, Any]:
        """The format."""
        return {"format": str(problem.spec.format)}


COMPONENTS = (Embedding(),)
