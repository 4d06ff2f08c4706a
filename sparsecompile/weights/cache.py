"""PackCache: what was made from weights, and whether it still is what they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, UntypedStorage
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.weights.expression import Apply, Binding, Leaf
from sparsecompile.weights.snapshot import (
    Snapshot,
    behind,
    could_be_better,
    geometry,
    take_snapshot,
)

logger = logging.getLogger("sparsecompile")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Made(Generic[T]):
    """Something made from a weight, with the snapshots of its live tensors at that moment."""

    value: T
    snapshots: tuple[Snapshot, ...]

    def is_alive(self) -> bool:
        """Whether the memory of all of the tensors is still there."""
        return all(snapshot.is_alive() for snapshot in self.snapshots)


@dataclass(eq=False)
class _Memory:
    """What is known of the tensors in one storage."""

    looks: dict[Hashable, tuple[int, Snapshot]] = field(default_factory=dict)
    made: dict[Hashable, Made[Any]] = field(default_factory=dict)


class PackCache:
    """What was made from weights, one copy for each purpose, kept as long as their memory lives.

    What is kept serves as long as the values are those that it was made from. Between compilations
    torch's word and samples are taken for it; every compilation looks at all of them.
    """

    def __init__(self) -> None:
        self._memories: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._lock = threading.RLock()
        self._generation = 0
        self.epoch = 0
        """Rises where weights changed and no version told, or another layout was chosen: compiled
        graphs then look anew."""

    def get(
        self,
        binding: Binding,
        tensors: Iterable[Tensor],
        purpose: Hashable,
        make: Callable[[], T],
    ) -> Made[T]:
        """`make()`, or what it gave before while the values of the live tensors are the same.

        Args:
            binding: the weight.
            tensors: the live tensors of `binding.leaves()`, in order.
            purpose: what is made; a weight has one value for each.
            make: makes it of these live tensors; called without gradients.
        """
        leaves = tuple(tensors)
        key = (identity(binding, leaves), purpose)
        _watch_fused_optimizers()
        with self._lock:
            # Looked at before it is packed: a write in between is noticed at the next call.
            snapshots = tuple(map(self.look, leaves))
            entries = self._memory(leaves[0]).made
            found: Made[T] | None = entries.get(key)
            if found is None or _values(found.snapshots) != _values(snapshots):
                with torch.no_grad():
                    found = Made(make(), snapshots)
                for other in [key for key, entry in entries.items() if not entry.is_alive()]:
                    del entries[other]
                entries[key] = found
            return found

    def look(self, tensor: Tensor) -> Snapshot:
        """What a live tensor is now.

        One that was looked at in this generation is trusted while torch knows of no write and its
        samples hold.
        """
        with self._lock:
            looks, lies = self._memory(tensor).looks, geometry(behind(tensor))
            generation, known = looks.get(lies, (-1, None))
            trusted = generation == self._generation
            lasting = known is not None and trusted and not could_be_better(known)
            if known is not None and lasting and known.matches(tensor):
                return known
            found = take_snapshot(tensor)
            changed = known is not None and known.fingerprint != found.fingerprint
            if changed and known is not None and known.is_of(tensor):
                logger.info("a weight %s was written to behind torch's back", tuple(tensor.shape))
                self.epoch += 1
            looks[lies] = self._generation, found
            return found

    def release(self, storage: UntypedStorage, weight: Hashable, purpose: Hashable) -> None:
        """Let go of what was made of a weight, by the first storage and the `identity` of it."""
        with self._lock:
            self._memories.get(storage, _Memory()).made.pop((weight, purpose), None)

    def distrust(self) -> None:
        """Compare the values of every weight with what is known of them, when it is next used."""
        with self._lock:
            self._generation += 1

    def forget(self, tensors: Iterable[Tensor]) -> None:
        """Look at these tensors anew at the next call of any graph, whatever torch says of them."""
        with self._lock:
            for tensor in tensors:
                self._memory(tensor).looks.clear()
            self.epoch += 1

    def _memory(self, tensor: Tensor) -> _Memory:
        """Of the storage: torch swaps tensors only while nobody refers to them, even weakly."""
        storage = behind(tensor).untyped_storage()
        return self._memories.setdefault(storage, _Memory())  # type: ignore[no-any-return]


def _values(snapshots: Iterable[Snapshot]) -> tuple[Hashable, ...]:
    return tuple(snapshot.fingerprint for snapshot in snapshots)


@cache
def _watch_fused_optimizers() -> None:
    """They write weights without telling torch's version counters."""

    def forget(optimizer: torch.optim.Optimizer, *_: object) -> None:
        fused = [group for group in optimizer.param_groups if group.get("fused")]
        if fused:
            PACK_CACHE.forget(tensor for group in fused for tensor in group["params"])

    register_optimizer_step_post_hook(forget)


def identity(binding: Binding, leaves: tuple[Tensor, ...]) -> Hashable:
    """Identity of an expression, whatever graph it appears in."""
    tensors = {leaf.index: behind(t) for leaf, t in zip(binding.leaves(), leaves, strict=True)}
    places = {i: (t.untyped_storage()._cdata, geometry(t)) for i, t in tensors.items()}

    def part(arg: Any) -> Hashable:
        if isinstance(arg, Leaf):
            return places[arg.index]
        if isinstance(arg, Apply):
            return arg.function, part(arg.args), repr(arg.kwargs)
        return tuple(map(part, arg)) if isinstance(arg, tuple) else repr(arg)

    return part(binding)


PACK_CACHE = PackCache()
"""The process's cache: recompiles, graph breaks and tied weights pack once."""
