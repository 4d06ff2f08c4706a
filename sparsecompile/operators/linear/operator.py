"""Linear: the operator of packed linears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from sparsecompile.formats.names import format_of
from sparsecompile.formats.packed import Format
from sparsecompile.graph.edit import Edit, origins
from sparsecompile.graph.pattern import Call, Match
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.ops import MAX_DENSE, arguments, linear
from sparsecompile.kernels.problem import DenseUse, Problem, rows_of
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.operators.linear.packed import PACKED
from sparsecompile.operators.linear.restore import live_parts, restore
from sparsecompile.operators.linear.spellings import LINEAR
from sparsecompile.operators.operator import Calling, Emitted, Operator, Slots
from sparsecompile.options.options import Options
from sparsecompile.weights.parts import has_parts

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost

_DENSITY_STEP = 0.05


class Linear(Operator[KernelSpec]):
    """`y = epilogue(a(x) @ W.T + bias)`; see `KernelSpec`."""

    name = KernelSpec.operator
    pattern = PACKED
    spelling = Call(LINEAR, ("x", "weight", "bias"))
    op = "sparsecompile::linear"

    def spec(self, format: Format, dtype: torch.dtype) -> KernelSpec:
        """Without epilogue."""
        return KernelSpec(format, dtype)

    def problem(self, match: Match, edit: Edit, options: Options) -> Problem[KernelSpec]:
        """By the m of the graph, and by whether the dense linear may serve."""
        x, weight = edit.value(match["x"]), edit.value(match["weight"])
        rows, is_dynamic = rows_of(x)
        surveys = [edit.considered[name].survey for name in origins(match.node)]
        density = density_of([survey.zeros for survey in surveys if survey is not None])
        dense, copy = _dense_use(match, edit, options), None
        # Torch's own linear has gradients.
        if (
            dense is not DenseUse.NEVER
            and (options.dense_copies or not live_parts(match))
            and not edit.weights.grad
        ):
            copy = edit.device.codegen.dense_copy(x.dtype)
        return Problem(
            spec=KernelSpec(
                format_of(match["format"]), x.dtype, match["epilogue"], match["activations"]
            ),
            shape=(weight.shape[0], weight.shape[1]),
            rows=rows,
            is_dynamic=is_dynamic,
            dense=dense,
            tune=options.tune,
            density=density,
            dense_copy=copy,
        )

    def emit(
        self, match: Match, problem: Problem[KernelSpec], call: Calling, slots: Slots, edit: Edit
    ) -> Emitted:
        """`packed_linear(...) -> sparsecompile::linear(...)`."""
        weight = slots.packed(match["weight"], problem.spec.format, call.kernel)
        dense = _dense_weights(match, slots, problem, MAX_DENSE) if call.wants_dense else ()
        args = arguments(
            *(match["x"], weight, match["bias"], match["operands"], dense),
            *(problem.shape[0], call.key),
        )
        names, value = origins(match.node), edit.value(match.node)
        new = edit.call(call.op, args, before=match.node, value=value, origins=names)
        edit.replace(match.node, new)
        return Emitted(new, weight, dense)

    def restore(self, match: Match, problem: Problem[KernelSpec], slots: Slots, edit: Edit) -> None:
        """`packed_linear(...) -> linear(...)` and the epilogue's steps."""
        restore(match, _dense_weights(match, slots, problem), problem.dense_copy, edit)

    def example(
        self, problem: Problem[KernelSpec], rows: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """`x` `[rows, k]`."""
        return (torch.randn(rows, problem.shape[1], generator=generator).to(problem.spec.dtype),)

    def run(
        self,
        problem: Problem[KernelSpec],
        inputs: Sequence[Tensor],
        weight: Tensor,
        kernel: Kernel[KernelSpec],
    ) -> Callable[[], Tensor]:
        """Without bias and epilogue."""
        return partial(linear, inputs[0], weight, None, (), problem.shape[0], kernel.key)

    def run_dense(
        self, problem: Problem[KernelSpec], inputs: Sequence[Tensor], weight: Tensor
    ) -> Callable[[], Tensor]:
        """`linear(x, weight)`, or the call of the library whose order the weight is in."""
        if problem.dense_copy is not None:
            return partial(problem.dense_copy.op, inputs[0], weight, None, problem.shape[0])
        return partial(F.linear, inputs[0], weight)

    def dense_cost(self, problem: Problem[KernelSpec]) -> Cost:
        """The weight, x and y once, and a multiply-add for each weight and row."""
        # sympy takes a third of a second to import, and not everyone measures.
        from sparsecompile.formats.symbols import m
        from sparsecompile.kernels.cost import Cost

        (n, k), dtype = problem.shape, problem.spec.dtype
        kind = "bfloat16" if dtype == torch.bfloat16 else "float32"
        return Cost((n * k + m * (n + k)) * dtype.itemsize, 2 * m * n * k, kind)

    def nothing_to_gain(self, problem: Problem[KernelSpec], device: Device) -> str:
        """By what any device moves and computes in no time."""
        n, k = problem.shape
        return device.codegen.nothing_to_gain((n, k), problem.rows, problem.spec.dtype)

    def facts(self, problem: Problem[KernelSpec]) -> Mapping[str, Any]:
        """Format and epilogue."""
        return {"format": str(problem.spec.format), "epilogue": problem.spec.epilogue}


def density_of(zeros: Sequence[float]) -> float:
    """Share of kept values, rounded to what problems tell apart, of linears that become one."""
    kept = 1 - sum(zeros) / len(zeros) if zeros else 1.0
    return round(round(kept / _DENSITY_STEP) * _DENSITY_STEP, 2)


def _dense_use(match: Match, edit: Edit, options: Options) -> DenseUse:
    """Where the dense linear can serve a node."""
    format = format_of(match["format"])
    lossless = format.codec.lossless and match["activations"] == "float"
    if not lossless or edit.weights.stored(match["weight"]) is not None:
        return DenseUse.NEVER
    # That all parts together beat the dense weight was found out when it was split.
    if format.structure.family != "dense" and has_parts(edit.binding(match["weight"])):
        return DenseUse.NEVER
    is_kept = options.dense_copies or 0 < len(live_parts(match)) <= MAX_DENSE
    return DenseUse.ANYWHERE if is_kept else DenseUse.ALONE


def _dense_weights(
    match: Match, slots: Slots, problem: Problem[KernelSpec], most: int | None = None
) -> tuple[Node, ...]:
    """The dense weights of a node: live ones if there are not too many, else a copy of them all."""
    parts, copy = live_parts(match), problem.dense_copy
    if parts and copy is None and (most is None or len(parts) <= most):
        return parts
    return (slots.dense(match["weight"], copy),)


COMPONENTS = (Linear(),)
