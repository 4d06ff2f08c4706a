"""What may go wrong on a GPU without ending a benchmark."""

from __future__ import annotations

from sparsecompile.codegen.triton.failures import triton_failures
from sparsecompile.errors import Reject, SparseCompileError


def failures() -> tuple[type[Exception], ...]:
    """What a kernel or a library raises where it cannot run after all."""
    return (*triton_failures(), ImportError, SparseCompileError, Reject)
