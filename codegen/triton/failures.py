"""What a candidate may raise on a GPU that it does not run on."""

from __future__ import annotations


def triton_failures() -> tuple[type[Exception], ...]:
    """Of Triton's compiler, which also asserts, of the driver and of libraries."""
    known = (RuntimeError, AssertionError)
    try:
        from triton.errors import TritonError
    except ImportError:
        return known
    return (*known, TritonError)
