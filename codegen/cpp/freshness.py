"""Snapshots of live tensors that a native library of their own takes and compares.

It is built before the ops, in a quarter of the time: every weight is looked at before kernels are
chosen.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.cpp.with_torch import load_with_torch
from sparsecompile.weights.snapshot import IsFresh, Provider, Snapshot, geometry, provide

_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("sc_tensor_in", ctypes.c_void_p, (ctypes.py_object,)),
    ("sc_take_snapshot", ctypes.c_void_p, (ctypes.py_object, ctypes.c_int64)),
    ("sc_fingerprint", ctypes.c_uint64, (ctypes.c_void_p,)),
    ("sc_is_of", ctypes.c_int, (ctypes.py_object, ctypes.c_void_p)),
    ("sc_matches", ctypes.c_int, (ctypes.py_object, ctypes.c_void_p)),
    ("sc_is_alive", ctypes.c_int, (ctypes.c_void_p,)),
    ("sc_forget_snapshot", None, (ctypes.c_void_p,)),
    ("sc_make_look", ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ("sc_is_fresh", ctypes.c_int, (ctypes.py_object, ctypes.c_void_p)),
    ("sc_forget_look", None, (ctypes.c_void_p,)),
)


_loading = threading.Lock()


def load_freshness() -> None:
    """Build and load the library once; afterwards it takes the snapshots.

    Without Python's headers, or where tensors are laid out otherwise, Python goes on taking them.

    Raises:
        BuildError: no compiler, or it failed.
        CacheError: the cache folder cannot be used.
    """
    with _loading:
        _load()


@cache
def _load() -> None:
    functions = load_with_torch("freshness", read("freshness.cpp"), _open)
    if hasattr(functions, "sc_take_snapshot"):
        freshness = NativeFreshness(functions)
        if freshness.knows_tensors():
            provide(freshness)


def _open(path: Path) -> ctypes.PyDLL:
    return ctypes.PyDLL(str(path))


class NativeFreshness(Provider):
    """The functions of `text/freshness.cpp`; they want Python's lock.

    Args:
        functions: the library.
    """

    def __init__(self, functions: ctypes.PyDLL) -> None:
        self._functions = functions
        for name, result, arguments in _FUNCTIONS:
            function = getattr(self._functions, name)
            function.restype, function.argtypes = result, arguments

    def knows_tensors(self) -> bool:
        """Whether tensors of this torch are laid out as the library assumes."""
        tensor = torch.empty(0)
        return bool(self._functions.sc_tensor_in(tensor) == tensor._cdata)

    def take(self, tensor: Tensor, row: int) -> Snapshot | None:
        """See `Provider`."""
        handle = self._functions.sc_take_snapshot(tensor, row)
        return None if handle is None else _NativeSnapshot(self._functions, handle, tensor)

    def look(self, places: Sequence[int], snapshots: Sequence[Snapshot]) -> IsFresh | None:
        """See `Provider`."""
        own = [s for s in snapshots if isinstance(s, _NativeSnapshot)]
        if len(own) < len(snapshots):
            return None
        handles = (ctypes.c_void_p * len(own))(*(snapshot.handle for snapshot in own))
        numbers = (ctypes.c_int64 * len(places))(*places)
        look = self._functions.sc_make_look(handles, numbers, len(own))
        compare: Callable[..., int] = self._functions.sc_is_fresh

        def is_fresh(arguments: tuple[Any, ...]) -> bool:
            return compare(arguments, look) != 0

        weakref.finalize(is_fresh, self._functions.sc_forget_look, look)
        return is_fresh


class _NativeSnapshot(Snapshot):
    def __init__(self, functions: ctypes.PyDLL, handle: int, tensor: Tensor) -> None:
        self._functions, self.handle = functions, handle
        values = functions.sc_fingerprint(handle)
        self.fingerprint: Hashable = (geometry(tensor), values)
        weakref.finalize(self, functions.sc_forget_snapshot, handle)

    def is_of(self, tensor: Tensor) -> bool:
        return bool(self._functions.sc_is_of(tensor, self.handle))

    def matches(self, tensor: Tensor) -> bool:
        return bool(self._functions.sc_matches(tensor, self.handle))

    def is_alive(self) -> bool:
        return bool(self._functions.sc_is_alive(self.handle))
