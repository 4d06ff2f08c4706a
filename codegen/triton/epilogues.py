"""The epilogue's steps in Triton, one expression each, and what else becomes of a sum."""

from __future__ import annotations

import torch

from sparsecompile.codegen.triton.decoding import group_of
from sparsecompile.codegen.triton.fragment import ELEMENTS
from sparsecompile.errors import Reject
from sparsecompile.formats.coding import Coding
from sparsecompile.kernels.epilogue import STEPS
from sparsecompile.kernels.spec import KernelSpec

EXPRESSIONS = {
    # Not a maximum: NaN stays NaN.
    "relu": "tl.where(value < 0.0, 0.0, value)",
    "gelu": "0.5 * value * (1.0 + tl.erf(value * 0.70710678))",
    # (1 + tanh(u)) / 2 is the logistic function of 2 u, which does not cancel.
    "gelu_tanh": "value * tl.sigmoid(value * (1.5957691216 + 0.0713548163 * value * value))",
    "silu": "value * tl.sigmoid(value)",
    "sigmoid": "tl.sigmoid(value)",
    "tanh": "2.0 * tl.sigmoid(2.0 * value) - 1.0",
    "add": "value + {operand}",
    "mul": "value * {operand}",
}
"""What becomes of `value`, in float32, in every step of `sparsecompile.kernels.epilogue.STEPS`."""

FINISH = '''\
@triton.jit
def finish(total, x_scales, weight, bias, operand0, operand1, y, rows, tokens, m, n, k):
    """y = epilogue(total + bias) for these rows of W and tokens of x; total is `[rows, tokens]`."""
    there = (rows < n)[:, None] & (tokens < m)[None, :]
    at = tokens.to(tl.int64)[None, :] * n + rows[:, None]
    value = total.to(tl.float32)
{steps}
    tl.store(y + at, value.to(y.dtype.element_ty), mask=there)
'''

BIAS = """\
    if bias is not None:
        value += tl.load(bias + rows, mask=rows < n, other=0.0).to(tl.float32)[:, None]"""

ROW_SCALES = '''\
@triton.jit
def row_scales(weight, rows, inside, n, k):
    """The scale of every row{how}."""
    scales = scales_part(weight, n, k).to(tl.pointer_type(tl.{stored}))
    found = tl.load(scales + rows, mask=inside, other=0)
    return {as_float}
'''

GROUP_SCALES = '''\
@triton.jit
def scales_at(weight, rows, columns, there, n, k):
    """The scales of {group} columns each{how}."""
    scales = scales_part(weight, n, k).to(tl.pointer_type(tl.{stored}))
    group, groups = columns // {group}, tl.cdiv(k, {group})
    at = rows.to(tl.int64) * groups + group
    found = tl.load(scales + at, mask=there & (group < groups), other=0)
    return {as_float}


@triton.jit
def scales_in(weight, rows, inside, first, n, k, COUNT: tl.constexpr):
    """The scales of COUNT columns from `first` on: `[rows, COUNT]`, or `[rows, 1]` for all."""
    if {group} % COUNT == 0:
        columns = first + tl.zeros((1, 1), tl.int32)
        return scales_at(weight, rows[:, None], columns, inside[:, None], n, k)
    elif COUNT % {group} == 0:
        columns = first + tl.arange(0, COUNT // {group})[None, :] * {group}
        scales = scales_at(weight, rows[:, None], columns, inside[:, None], n, k)
        wide = tl.broadcast_to(scales[:, :, None], (rows.shape[0], COUNT // {group}, {group}))
        return wide.reshape(rows.shape[0], COUNT)
    else:
        columns = first + tl.arange(0, COUNT)[None, :]
        return scales_at(weight, rows[:, None], columns, inside[:, None], n, k)
'''


def check_epilogue(steps: tuple[str, ...]) -> None:
    """Return if every step can be written in Triton.

    Raises:
        Reject: a step has no expression.
    """
    for name in steps:
        if name not in EXPRESSIONS:
            raise Reject(f"the epilogue step {name!r} has no Triton expression")


def render_scales(coding: Coding) -> str:
    """The functions that read scales and offsets; empty where there are none."""
    group = group_of(coding)
    if group is None:
        return ""
    text = GROUP_SCALES if group else ROW_SCALES
    if coding.scales == torch.bfloat16:
        how, stored = ": bfloat16 is the upper half of float32", "int16"
        as_float = "(found.to(tl.int32) << 16).to(tl.float32, bitcast=True)"
    else:
        how, stored, as_float = "", ELEMENTS[coding.scales], "found.to(tl.float32)"
    scales = text.format(group=group, how=how, stored=stored, as_float=as_float)
    if coding.offsets is None:
        return scales
    if coding.offsets == "zero_points":
        how, stored, as_float = "", "uint8", "found.to(tl.float32)"
    offsets = text.format(group=group, how=how, stored=stored, as_float=as_float)
    return f"{scales}\n\n{offsets.replace('scales', 'offsets')}"


def render_finish(spec: KernelSpec) -> str:
    """The function `finish`: scales of rows and tokens, the bias and the epilogue, in float32."""
    lines = []
    if group_of(spec.coding) == 0:
        lines.append("    value *= row_scales(weight, rows, rows < n, n, k)[:, None]")
    if spec.activations != "float":
        scales = "tl.load(x_scales + tokens, mask=tokens < m, other=0.0)"
        lines.append(f"    value *= {scales}[None, :]")
    lines.append(BIAS)
    operands = iter(("operand0", "operand1"))
    for name in spec.epilogue:
        operand = ""
        if STEPS[name].has_operand:
            operand = next(operands)
            load = f"tl.load({operand} + at, mask=there, other=0.0).to(tl.float32)"
            lines.append(f"    {operand}_here = {load}")
            operand = f"{operand}_here"
        lines.append(f"    value = {EXPRESSIONS[name].format(operand=operand)}  # {name}")
    return FINISH.format(steps="\n".join(lines))
