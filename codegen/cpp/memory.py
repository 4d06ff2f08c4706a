"""Memory for layouts: aligned, on huge pages where the system gives them."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64
HUGE_PAGE = 2 << 20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
NODES = Path("/sys/devices/system/node")


def allocate(nbytes: int) -> Tensor:
    """`[nbytes]` uint8 with undefined contents.

    It begins at a multiple of 64 bytes; from 2 MiB on at a multiple of 2 MiB, where Linux is asked
    for transparent huge pages: fewer page-table walks make streams faster.
    """
    alignment = HUGE_PAGE if nbytes >= HUGE_PAGE else ALIGNMENT
    memory = torch.empty(nbytes + alignment, dtype=torch.uint8)
    start = -memory.data_ptr() % alignment
    layout = memory[start : start + nbytes]
    advise = getattr(mmap, "MADV_HUGEPAGE", None)
    if alignment == HUGE_PAGE and advise is not None and _madvise() is not None:
        # Refused where the kernel was built without them: then pages stay small.
        _madvise()(layout.data_ptr(), nbytes // HUGE_PAGE * HUGE_PAGE, advise)
    return layout


@cache
def _madvise() -> Any:
    """The C function, or None where the system has none."""
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def huge_pages() -> str:
    """When Linux gives transparent huge pages: `always`, `madvise` (on request) or `never`."""
    try:
        modes = HUGE_PAGES.read_text().split()
    except OSError:
        return "never"
    return next((mode.strip("[]") for mode in modes if mode.startswith("[")), "never")


def memory_nodes() -> int:
    """How many parts memory has, each nearer to some of the cores than the others are (NUMA).

    Layouts are first written by the threads that will read them, and so lie near them.
    """
    return max(1, len(list(NODES.glob("node[0-9]*"))))
