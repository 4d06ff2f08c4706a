"""Memory for layouts: aligned, on huge pages where the system gives them."""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsecompile.errors import SparseCompileError

ALIGNMENT = 64
HUGE_PAGE = 2 << 20
SHARED = 8 * HUGE_PAGE
"""Bytes that small layouts are cut from; the system gives them when they are written to."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
NODES = Path("/sys/devices/system/node")


@dataclass
class _Region:
    """Memory of the system's, asked for in huge pages: freed when no tensor is left in it.

    Attributes:
        memory: the mapping, with up to a huge page in front of what is used.
        end: where its next tensor may begin, in bytes.
    """

    memory: mmap.mmap
    end: int

    @classmethod
    def of(cls, nbytes: int) -> _Region:
        """Room for so many bytes, from a multiple of 2 MiB on."""
        try:
            memory = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise SparseCompileError(
                f"a layout needs {nbytes:,} bytes and the system gives no memory for them "
                f"({error.strerror}); end other programs and try again"
            ) from error
        advise = getattr(mmap, "MADV_HUGEPAGE", None)
        if advise is not None:
            # Refused where the kernel was built without them: then pages stay small.
            with suppress(OSError):
                memory.madvise(advise)
        start = torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr()
        return cls(memory, -start % HUGE_PAGE)

    def take(self, nbytes: int) -> Tensor:
        """The next bytes, in a storage of their own."""
        taken = torch.frombuffer(self.memory, dtype=torch.uint8, count=nbytes, offset=self.end)
        self.end += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return taken


_shared: _Region | None = None
_sharing = threading.Lock()


def allocate(nbytes: int, *, stays: bool = False) -> Tensor:
    """`[nbytes]` uint8, zeros.

    It begins at a multiple of 64 bytes; from 2 MiB on at a multiple of 2 MiB, where Linux is asked
    for transparent huge pages: fewer page-table walks make streams faster.

    Args:
        nbytes: how many.
        stays: whether it is a layout that kernels read, not what one is made of: then small ones,
            too, lie on such pages, one behind the other, in memory that is freed with the last.

    Raises:
        SparseCompileError: there is not enough memory.
    """
    global _shared
    if nbytes >= HUGE_PAGE:
        return _Region.of(nbytes).take(nbytes)
    if not stays or not nbytes:
        memory = torch.zeros(nbytes + ALIGNMENT, dtype=torch.uint8)
        return memory[-memory.data_ptr() % ALIGNMENT :][:nbytes]
    with _sharing:
        if _shared is None or _shared.end + nbytes > len(_shared.memory):
            _shared = _Region.of(SHARED)
        return _shared.take(nbytes)


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
