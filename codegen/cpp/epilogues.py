"""The epilogue's steps in C++, one expression each."""

from __future__ import annotations

from sparsecompile.errors import Reject
from sparsecompile.kernels.epilogue import STEPS

EXPRESSIONS = {
    "relu": "value < 0.0f ? Values{{}} : value",
    "gelu": "0.5f * value * complementary_error(value * -0.70710678f)",
    # (1 + tanh(u)) / 2 is the logistic function of 2 u, which does not cancel.
    "gelu_tanh": "value * logistic(value * (1.5957691216f + 0.0713548163f * value * value))",
    "silu": "value * logistic(value)",
    "sigmoid": "logistic(value)",
    "tanh": "hyperbolic_tangent(value)",
    "add": "value + {operand}",
    "mul": "value * {operand}",
}
"""What becomes of `value`, a float or a vector of them, in every step of the epilogue."""


def check_epilogue(steps: tuple[str, ...]) -> None:
    """Return if every step can be written in C++.

    Raises:
        Reject: a step has no expression.
    """
    for name in steps:
        if name not in EXPRESSIONS:
            raise Reject(f"the epilogue step {name!r} has no C++ expression")


def render_epilogue(steps: tuple[str, ...]) -> str:
    """The function `epilogue(value, operand0, operand1)`, in float32."""
    operands = iter(("operand0", "operand1"))
    lines = []
    for name in steps:
        operand = next(operands) if STEPS[name].has_operand else ""
        lines.append(f"  value = {EXPRESSIONS[name].format(operand=operand)};  // {name}")
    body = "\n".join((*lines, "  return value;"))
    return (
        "namespace {\n\n"
        "// For a float or a vector of them.\n"
        "template <class Values>\n"
        "SC_INLINE Values epilogue(Values value, [[maybe_unused]] Values operand0,\n"
        "                          [[maybe_unused]] Values operand1) {\n"
        f"{body}\n}}\n\n}}  // namespace\n"
    )
