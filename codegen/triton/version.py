"""The Triton that compiles."""

from __future__ import annotations

from sparsecompile.errors import BuildError

MISSING = (
    "Triton is not installed, and nothing can be compiled for GPUs without it: "
    "pip install triton (Linux; no GPU is needed)"
)


def triton_version() -> str:
    """Version of the Triton that compiles.

    Raises:
        BuildError: it is not installed, or interprets instead.
    """
    try:
        import triton
    except ImportError as error:
        raise BuildError(MISSING) from error
    if triton.knobs.runtime.interpret:
        raise BuildError(
            "TRITON_INTERPRET is set, so Triton compiles nothing; unset it and start anew"
        )
    return str(triton.__version__)
