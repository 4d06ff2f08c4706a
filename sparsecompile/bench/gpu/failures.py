"""What may go wrong on a GPU without ending a benchmark."""

from __future__ import annotations

from sparsecompile.errors import SparseCompileError


def failures() -> tuple[type[Exception], ...]:
    """What a kernel or a library raises where it cannot run after all."""
    try:
        from triton.errors import TritonError
    except ImportError:
        return (RuntimeError, AssertionError, ImportError, SparseCompileError)
    return (RuntimeError, AssertionError, ImportError, SparseCompileError, TritonError)
