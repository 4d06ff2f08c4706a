"""What a packed linear may do to its result before storing it, defined by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Step:
    """One elementwise step.

    Attributes:
        name: how specs, reports and generated code call it.
        apply: the definition: `apply(y)` or `apply(y, operand)`.
        has_operand: whether it reads a second tensor of the result's shape.
    """

    name: str
    apply: Callable[..., Tensor]
    has_operand: bool = False


STEPS = {
    step.name: step
    for step in (
        Step("relu", F.relu),
        Step("gelu", F.gelu),
        Step("gelu_tanh", lambda y: F.gelu(y, approximate="tanh")),
        Step("silu", F.silu),
        Step("sigmoid", torch.sigmoid),
        Step("tanh", torch.tanh),
        Step("add", torch.add, has_operand=True),
        Step("mul", torch.mul, has_operand=True),
    )
}
"""Steps by name. A chain of them, with at most `MAX_OPERANDS` operands, is an epilogue."""

MAX_OPERANDS = 2


def apply_epilogue(y: Tensor, steps: Sequence[str], operands: Sequence[Tensor]) -> Tensor:
    """Run a chain of steps by its definition; `operands` in the order in which they are read."""
    rest = iter(operands)
    for name in steps:
        step = STEPS[name]
        y = step.apply(y, next(rest)) if step.has_operand else step.apply(y)
    return y
