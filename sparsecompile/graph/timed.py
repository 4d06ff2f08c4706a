"""Timed: how long a part of a compilation takes, noted where torch notes its own parts."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

PREFIX = "sparsecompile."


def timed(part: str) -> AbstractContextManager[None]:
    """Note the time of what runs inside, also in tlparse and `torch._dynamo.utils.compile_times()`.

    Args:
        part: such as `passes`.
    """
    # Where Dynamo has not run, as in `compress`, nothing is compiled.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    from torch._dynamo.utils import dynamo_timed

    return dynamo_timed(f"{PREFIX}{part}")
