"""The native library: built once, loaded once, and told of every kernel."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.build import open_library
from sparsecompile.codegen.cpp.freshness import load_freshness
from sparsecompile.codegen.cpp.text import named, room
from sparsecompile.codegen.cpp.with_torch import load_with_torch
from sparsecompile.errors import SparseCompileError
from sparsecompile.weights.snapshot import expect

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
MAX_RANGES = 16
ENDLESS = 2**62
"""The last m of a range that has none."""


class NativeKernel(ctypes.Structure):
    """`SCKernel` of `text/native/kernels.h`, field by field."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("key", ctypes.c_int64),
        ("layout", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
        ("operands", ctypes.c_int64),
        ("epilogue", ctypes.c_int64),
        ("ranges", ctypes.c_int64),
        ("largest_m", ctypes.c_int64 * MAX_RANGES),
        ("linear", ctypes.c_void_p * MAX_RANGES),
        ("workspace", ctypes.c_void_p * MAX_RANGES),
        ("dense", ctypes.c_int64 * MAX_RANGES),
        ("stage_m", ctypes.c_int64 * MAX_RANGES),
        ("unpack", ctypes.c_void_p),
        ("finish", ctypes.c_void_p),
    )


_loading = threading.Lock()


@dataclass(frozen=True)
class Native:
    """The loaded library.

    Attributes:
        register: makes a kernel known to the ops.
        serve: lets a call run a kernel, see `Codegen.serve`.
        evict: takes the memory of a contiguous tensor out of the caches.
        library: the library itself, for the `Entry` of an operator with a table of its own.
    """

    register: Callable[[NativeKernel], None]
    serve: Callable[[int, int], None]
    evict: Callable[[Tensor], None]
    library: ctypes.CDLL


def load_native() -> Native:
    """Build and load the library once, and what looks at tensors before it; then the ops run.

    Raises:
        BuildError: no compiler, or it failed.
        CacheError: the cache folder cannot be used.
    """
    with _loading:
        return _load()


@cache
def start_loading() -> None:
    """Begin `load_native` beside the caller, once: torch's headers take a compiler ten seconds.

    Snapshots wait for what takes them. What fails is raised by `load_native` itself.
    """

    def attempt() -> None:
        with suppress(SparseCompileError):
            load_native()

    expect(load_freshness)
    threading.Thread(target=attempt, name="sparsecompile-native").start()


@cache
def _library() -> ctypes.CDLL:
    """The library, once in a process: another copy would have a table of kernels of its own.

    Raises:
        SparseCompileError: there is a copy, by whichever way it came.
    """
    if torch._C._dispatch_has_kernel_for_dispatch_key("sparsecompile::linear", "CPU"):
        raise SparseCompileError(
            "the native library of sparsecompile is in this process already, loaded by another "
            "copy of the module sparsecompile.codegen.cpp.native: kernels of one copy are unknown "
            "to the other. Import sparsecompile once, by this name"
        )
    text = "\n".join((*named("arguments.h"), *room("native")))
    return load_with_torch("native", text, _open, f"SC_MAX_RANGES={MAX_RANGES}")


@cache
def _load() -> Native:
    import sparsecompile.kernels.ops  # noqa: F401 - schemas come before implementations

    load_freshness()
    library = _library()

    def register(kernel: NativeKernel) -> None:
        library.sc_register_kernel(ctypes.byref(kernel))

    def evict(tensor: Tensor) -> None:
        library.sc_evict(tensor.data_ptr(), tensor.numel() * tensor.element_size())

    return Native(register, library.sc_serve, evict, library)


def _open(path: Path) -> ctypes.CDLL:
    library = open_library(path)
    library.sc_register_kernel.argtypes = (ctypes.POINTER(NativeKernel),)
    library.sc_register_kernel.restype = None
    library.sc_serve.argtypes = (ctypes.c_int64, ctypes.c_int64)
    library.sc_serve.restype = None
    library.sc_register_region.restype = None
    library.sc_evict.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    library.sc_evict.restype = None
    return library
