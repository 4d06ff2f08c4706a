"""What is done to x before the product, in C++."""

from __future__ import annotations

from sparsecompile.codegen.cpp.text import read
from sparsecompile.errors import Reject

_ROUNDS = {"float": "false", "int8": "true"}


def check_rounding(activations: str) -> None:
    """Return if C++ rounds x so.

    Raises:
        Reject: it does not know how.
    """
    if activations not in _ROUNDS:
        raise Reject(f"no C++ rounds activations to {activations!r}")


def render_rounding(activations: str) -> str:
    """`activation_scale` and `round_activation` of `text/round.h`."""
    constant = f"constexpr bool rounds_activations = {_ROUNDS[activations]};"
    return f"namespace {{\n\n{constant}\n\n}}  // namespace\n\n{read('round.h')}"
