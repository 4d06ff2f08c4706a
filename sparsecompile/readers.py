"""Readers: which slots of compiled graphs hand out the layout of a weight."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.template import Device
from sparsecompile.weights import Binding, identity

if TYPE_CHECKING:
    from sparsecompile.lowering import Lowered
    from sparsecompile.slot import PackedSlot


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


class Readers:
    """Slots by weight, as long as both live; a graph may be called with several sets of weights."""

    def __init__(self) -> None:
        self._slots: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._readings: weakref.WeakKeyDictionary[PackedSlot, Reading] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def add(self, slot: PackedSlot, tensors: Sequence[Tensor]) -> None:
        """Note that a slot hands out the weight that its binding makes of these live tensors."""
        key = identity(slot.binding, tuple(tensors))
        with self._lock:
            weights = self._slots.setdefault(tensors[0], {})
            weights.setdefault(key, weakref.WeakSet()).add(slot)

    def set(self, slot: PackedSlot, reading: Reading) -> None:
        """What the graph of a slot does with it from now on."""
        self._readings[slot] = reading

    def of(
        self, binding: Binding, tensors: Sequence[Tensor], device: Device
    ) -> list[tuple[PackedSlot, Reading]]:
        """The slots of graphs for a device that hand out a weight, and what is done with it."""
        with self._lock:
            weights = self._slots.get(tensors[0], {})
            slots = list(weights.get(identity(binding, tuple(tensors)), ()))
        found = [(slot, self._readings[slot]) for slot in slots if slot in self._readings]
        return [(slot, reading) for slot, reading in found if reading.device == device]


READERS = Readers()
"""Those of this process."""
