"""Lowered: what became of one packed node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.kernels.problem import Problem
from sparsecompile.operators.operator import Operator


@dataclass(frozen=True, eq=False)
class Lowered:
    """What became of one packed node.

    Attributes:
        origins: names of the linears it does the work of.
        operator: what kind of node it was.
        problem: what a kernel was needed for.
        lowering: its kernel, if it has one, and why.
        nbytes: bytes of its layout; 0 where the dense linear serves it.
        call: what the graph calls its kernel.
        has_dense: whether the graph hands that the dense weight too.
        copy_bytes: those of `nbytes` that a dense copy takes.
    """

    origins: tuple[str, ...]
    operator: Operator[Any]
    problem: Problem[Any]
    lowering: Lowering
    nbytes: int
    call: int = 0
    has_dense: bool = False
    copy_bytes: int = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the report says of it beside its kernel."""
        return self.operator.facts(self.problem)

    @property
    def kernel(self) -> Kernel[Any] | None:
        """The kernel, None where the dense linear serves it."""
        return self.lowering.kernel
