"""Snapshots: what live tensors were when they were looked at, and whether they still are that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from sparsecompile.errors import SparseCompileError

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_HALF = 0xFFFFFFFF
_CACHED, _LAUNCHED = 1 << 16, 1 << 24
"""Words at once: as many as stay in a CPU's caches, and as are worth a GPU's launches."""

IsFresh: TypeAlias = Callable[[tuple[Any, ...]], bool]
"""Whether the tensors among a call's arguments are the same, and as they were."""


class Snapshot(ABC):
    """A live tensor at a moment. It keeps neither the tensor nor its memory alive.

    Torch refuses to swap a tensor that somebody refers to, even weakly: what is noted is the memory
    behind it, and the count of what was written there.

    Attributes:
        fingerprint: stands for the values, their dtype and how they lie in memory; equal ones mean
            equal weights.
    """

    fingerprint: Hashable

    @abstractmethod
    def is_of(self, tensor: Tensor) -> bool:
        """Whether a tensor has the same memory, and torch knows of no write into it since."""

    def matches(self, tensor: Tensor) -> bool:
        """Whether it is that, and the values hold where they are sampled."""
        return self.is_of(tensor)

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether the memory is still there."""


class Provider(ABC):
    """A native library that looks at plain tensors on the CPU: Python is too slow for hundreds."""

    @abstractmethod
    def take(self, tensor: Tensor, row: int) -> Snapshot | None:
        """A snapshot of a tensor without gaps, in rows of so many values; None where it cannot."""

    @abstractmethod
    def look(self, places: Sequence[int], snapshots: Sequence[Snapshot]) -> IsFresh | None:
        """See `look_at`; None where some of the snapshots are not its own."""


_provider: Provider | None = None
_coming: Callable[[], object] | None = None


def provide(provider: Provider) -> None:
    """Let a native library take snapshots."""
    global _provider
    _provider = provider


def expect(load: Callable[[], object]) -> None:
    """Let the next snapshot wait for a native library: it is built sooner than Python looks.

    Args:
        load: calls `provide`, or raises SparseCompileError; then Python takes the snapshots.
    """
    global _coming
    _coming = load


def _await_provider() -> None:
    global _coming
    coming, _coming = _coming, None
    if coming is not None and _provider is None:
        with suppress(SparseCompileError):
            coming()


def take_snapshot(tensor: Tensor) -> Snapshot:
    """What a tensor is now; of a packed one, what it stands for.

    Raises:
        RuntimeError: an inference tensor, which has no version.
    """
    if has_parts(tensor):
        return _Parts(tuple(map(take_snapshot, _parts(tensor))))
    if is_plain(tensor) and tensor.device.type == "cpu":
        _await_provider()
        by_rows = _by_rows(tensor)
        if _provider is not None and by_rows.is_contiguous():
            taken = _provider.take(tensor, by_rows.shape[-1] if by_rows.dim() else 1)
            if taken is not None:
                return taken
    lasting = _provider is not None or not is_plain(tensor)
    return _Noted.of(behind(tensor), lasting=lasting)


def look_at(places: Sequence[int], snapshots: Sequence[Snapshot]) -> IsFresh:
    """What compares a call's arguments at these places with snapshots of them.

    Torch counts what it writes itself, and that is noticed at once. For all else the native library
    samples the values of weights on the CPU, at other places from call to call.
    """
    if _provider is not None:
        found = _provider.look(places, snapshots)
        if found is not None:
            return found
    pairs = tuple(zip(snapshots, places, strict=True))

    def is_fresh(arguments: tuple[Any, ...]) -> bool:
        return all(snapshot.is_of(arguments[place]) for snapshot, place in pairs)

    return is_fresh


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is torch's own, of no subclass."""
    return type(tensor) in (Tensor, torch.nn.Parameter)


def behind(tensor: Tensor) -> Tensor:
    """A tensor that stands and falls with another: the handle of a packed one, else itself."""
    if not isinstance(tensor, Tensor) or is_plain(tensor):
        return tensor
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor
    names, _ = flatten()
    return getattr(tensor, names[0])  # type: ignore[no-any-return]


def has_parts(tensor: Tensor) -> bool:
    """Whether a tensor is made of several others, as other libraries' quantised ones are."""
    return isinstance(tensor, Tensor) and len(_parts(tensor)) > 1


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors that a subclass flattens into; none for any other."""
    flatten = None if is_plain(tensor) else getattr(tensor, "__tensor_flatten__", None)
    return tuple(getattr(tensor, name) for name in flatten()[0]) if flatten is not None else ()


def could_be_better(snapshot: Snapshot) -> bool:
    """Whether the native library has come since a snapshot was taken of what it can look at."""
    return isinstance(snapshot, _Noted) and not snapshot.lasting and _provider is not None


def geometry(tensor: Tensor) -> Hashable:
    """How a tensor lies in its memory."""
    return tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _by_rows(tensor: Tensor) -> Tensor:
    """The same values in the order of memory, if nothing lies between them."""
    order = sorted(range(tensor.dim()), key=lambda d: (tensor.stride(d), tensor.shape[d]))
    return tensor.detach().permute(order[::-1])


def fingerprint(tensor: Tensor) -> int:
    """A number of 64 bits that stands for a tensor's values, in the order of memory.

    With the memory's words w of 64 bits, filled up with zeros, the golden ratio's bits c and
    `x = w[i] + (i + 1) * c` it is the sum of `low(x) * high(x) + x`, modulo 2^64: as in NH (Black
    et al., UMAC, 1999) a product of halves, here with the place as the key. The native library
    computes the same as fast as memory delivers.

    Args:
        tensor: on any device; of any shape, strides and dtype.
    """
    flat = _by_rows(tensor).contiguous().reshape(-1).view(torch.uint8)
    if flat.numel() % 8 or flat.storage_offset() % 8:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    words, total = flat.view(torch.int64), 0
    at_once = _CACHED if flat.device.type == "cpu" else _LAUNCHED
    for first in range(0, words.numel(), at_once):
        some = words[first : first + at_once]
        places = torch.arange(first + 1, first + 1 + some.numel(), device=some.device)
        mixed = some + places * _GOLDEN
        total += int(((mixed & _HALF) * (mixed >> 32 & _HALF) + mixed).sum())
    return total % (1 << 64)


@dataclass(frozen=True, eq=False)
class _Noted(Snapshot):
    """What Python notes of a tensor: on GPUs, and where the native library is not there yet.

    Its storage is held by a weak reference: no other storage gets the same address, as one of the
    same size does that is made after this one was freed.
    """

    fingerprint: Hashable
    storage: StorageWeakRef
    behind: int
    version: int
    data_ptr: int
    geometry: Hashable
    lasting: bool

    @classmethod
    def of(cls, tensor: Tensor, *, lasting: bool) -> _Noted:
        """A tensor as it is now; nothing better will be known of it if that is `lasting`."""
        lies, has_values = geometry(tensor), is_plain(tensor) and tensor.device.type != "meta"
        return cls(
            # What has no values is equal to nothing but itself.
            (lies, fingerprint(tensor)) if has_values else object(),
            StorageWeakRef(tensor.untyped_storage()),
            tensor._cdata,
            tensor._version,
            tensor.data_ptr() if has_values else 0,
            lies,
            lasting or not has_values or tensor.device.type != "cpu",
        )

    def is_of(self, tensor: Tensor) -> bool:
        tensor = behind(tensor)
        return (
            isinstance(tensor, Tensor)
            and self.storage.cdata == tensor.untyped_storage()._cdata
            and self.behind == tensor._cdata
            and self.version == tensor._version
            and (self.data_ptr == 0 or self.data_ptr == tensor.data_ptr())
            and self.geometry == geometry(tensor)
        )

    def is_alive(self) -> bool:
        return not self.storage.expired()


@dataclass(frozen=True, eq=False)
class _Parts(Snapshot):
    """What is noted of each of the tensors that a subclass is made of."""

    parts: tuple[Snapshot, ...]

    @property
    def fingerprint(self) -> Hashable:  # type: ignore[override]
        return tuple(part.fingerprint for part in self.parts)

    def is_of(self, tensor: Tensor) -> bool:
        return all(part.is_of(of) for part, of in self._pairs(tensor))

    def matches(self, tensor: Tensor) -> bool:
        return all(part.matches(of) for part, of in self._pairs(tensor))

    def _pairs(self, tensor: Tensor) -> Iterator[tuple[Snapshot, Any]]:
        # What another tensor does not have is no part of it either.
        return zip_longest(self.parts, _parts(tensor)[: len(self.parts)])

    def is_alive(self) -> bool:
        return all(part.is_alive() for part in self.parts)
