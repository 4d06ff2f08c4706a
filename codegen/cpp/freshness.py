"""Snapshots of live tensors that the native library takes and compares."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecompile.weights.snapshot import IsFresh, Provider, Snapshot, geometry

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


class NativeFreshness(Provider):
    """The functions of `text/native/freshness.cpp`; they want Python's lock.

    Args:
        library: the native library.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = ctypes.PyDLL(library._name)
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
