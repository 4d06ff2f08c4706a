"""What may go wrong on a GPU without ending a benchmark."""

from __future__ import annotations

from sparsecompile.errors import Reject, SparseCompileError


def failures() -> tuple[type[Exception], ...]:
    """What a kernel or a library raises where it cannot run after all."""
    known = (RuntimeError, AssertionError, ImportError, SparseCompileError, Reject)
    try:
        from triton.errors import TritonError
    except ImportError:
        return known
    return (*known, TritonError)
