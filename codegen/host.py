"""What tells this CPU from others."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def host_cpu() -> str:
    """What `-march=native` depends on: the architecture, and lines of `/proc/cpuinfo`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    found = (next((line for line in lines if line.startswith(word)), "") for word in wanted)
    return "\n".join((platform.machine(), *found))
