"""Readers: which slots of compiled graphs hand out the layout of a weight."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor, UntypedStorage
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.formats.packed import Format
from sparsecompile.kernels.codegen import Device
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.weights.cache import identity
from sparsecompile.weights.expression import Binding
from sparsecompile.weights.snapshot import behind


class Reads(Protocol):
    """A slot that hands out the layout that a kernel reads."""

    binding: Binding
    format: Format


S = TypeVar("S", bound=Reads)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a compiled graph does with the weight of a slot.

    Attributes:
        device: where its kernels run.
        calls: its nodes that read the weight.
        tell: is told what serves a node from now on.
        forget: makes the graph ask its slots anew.
    """

    device: Device
    calls: tuple[Lowered, ...]
    tell: Callable[[Lowered], None]
    forget: weakref.WeakMethod[Callable[[], None]]


class Readers(Generic[S]):
    """Slots by weight, as long as both live; a graph may be called with several sets of weights."""

    def __init__(self) -> None:
        self._slots: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """By the first storage of a weight: slots by the weight's identity."""
        self._weights: weakref.WeakKeyDictionary[S, WeakIdKeyDictionary] = (
            weakref.WeakKeyDictionary()
        )
        """Identities of what a slot hands out, by the first storage."""
        self._readings: weakref.WeakKeyDictionary[S, Reading] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def add(self, slot: S, tensors: Sequence[Tensor]) -> None:
        """Note that a slot hands out the weight that its binding makes of these live tensors."""
        first, weight = _key(slot.binding, tensors)
        with self._lock:
            slots = self._slots.setdefault(first, {}).setdefault(weight, weakref.WeakSet())
            slots.add(slot)
            weights = self._weights.setdefault(slot, WeakIdKeyDictionary())
            weights.setdefault(first, set()).add(weight)

    def set(self, slot: S, reading: Reading) -> None:
        """What the graph of a slot does with it from now on."""
        self._readings[slot] = reading

    def of(
        self, binding: Binding, tensors: Sequence[Tensor], format: Format, device: Device
    ) -> list[tuple[S, Reading]]:
        """Slots that hand out a weight, or others beside one that does, and what reads them.

        Args:
            binding: the weight.
            tensors: the live tensors of its leaves, in order.
            format: in which it is packed.
            device: of their graphs.
        """
        left = [_key(binding, tensors)]
        found: dict[S, Reading] = {}
        with self._lock:
            while left:
                first, weight = left.pop()
                for slot in self._slots.get(first, {}).get(weight, ()):
                    reading = self._readings.get(slot)
                    if slot in found or reading is None or reading.device != device:
                        continue
                    if slot.format == format:
                        found[slot] = reading
                        left += self._handed_out(slot)
        return list(found.items())

    def weights(self, slot: S) -> list[tuple[UntypedStorage, Hashable]]:
        """What a slot hands out: the first storage and the identity of each weight."""
        with self._lock:
            return self._handed_out(slot)

    def _handed_out(self, slot: S) -> list[tuple[UntypedStorage, Hashable]]:
        weights = self._weights[slot]
        return [(first, weight) for first, keys in weights.items() for weight in keys]


def _key(binding: Binding, tensors: Sequence[Tensor]) -> tuple[UntypedStorage, Hashable]:
    """A weight by the storage of its first live tensor, and its identity."""
    return behind(tensors[0]).untyped_storage(), identity(binding, tuple(tensors))
