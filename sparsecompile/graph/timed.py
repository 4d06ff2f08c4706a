"""Timed: how long a part of a compilation takes, noted where torch notes its own parts."""

from __future__ import annotations

from contextlib import AbstractContextManager

PREFIX = "sparsecompile."


def timed(part: str) -> AbstractContextManager[None]:
    """Note the time of what runs inside, also in tlparse and `torch._dynamo.utils.compile_times()`.

    Args:
        part: such as `passes`.
    """
    # Imports Dynamo, which has run wherever something is compiled.
    from torch._dynamo.utils import dynamo_timed

    return dynamo_timed(f"{PREFIX}{part}")
