"""CompiledGraph: packed weights attached to a graph, checked at every call."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.lowering.slots import Slot, dense_copy
from sparsecompile.weights.cache import PACK_CACHE
from sparsecompile.weights.expression import Leaf, live
from sparsecompile.weights.snapshot import IsFresh, Snapshot, is_plain, look_at

Misfit = Callable[[str, str, bool], object]
"""Is told, once a change, which weight does not fit, why, and whether its linear alone is dense."""

_Misfits = Mapping[str, tuple[Hashable, str]]


@dataclass(frozen=True, eq=False)
class _State:
    """What slots made of the live tensors at the last look.

    Attributes:
        first: the first live tensor.
        is_fresh: whether a call's tensors are still those.
        epoch: of the cache.
        weights: one a slot; None where the dense graph has to run.
        lent: places of those that are the model's own weights, and of these among the arguments:
            a state keeps no weight of a model alive.
        misfits: weights that do not fit the graph, with what they hold, and why.
    """

    first: Snapshot
    is_fresh: IsFresh
    epoch: int
    weights: tuple[Tensor | None, ...] | None
    lent: tuple[tuple[int, int], ...]
    misfits: _Misfits


class CompiledGraph:
    """What Dynamo calls: the packed graph while its weights are fresh.

    At every call the live tensors are compared with what was packed; see `snapshot.look_at`. Where
    one differs its weight is packed again. Where it no longer fits its format its linear runs
    dense, on GPUs its whole graph, until it fits again. One graph may serve several sets of
    weights: Dynamo guards on the structure of modules, so that the layers of a model compiled one
    by one share it.

    Args:
        run: the compiled packed graph; takes the kept arguments, then the slots' weights.
        keep: which of Dynamo's arguments it takes.
        slots: the weights that it reads instead of the model's own.
        dense: makes the compiled dense original, when it is first needed.
        misfit: see `Misfit`.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        keep: Sequence[int],
        slots: Sequence[Slot],
        dense: Callable[[], Callable[..., Any]],
        misfit: Misfit,
    ) -> None:
        self._run = run
        self._kept = _picker(keep)
        self._slots = tuple(slots)
        self._make_dense = dense
        self._misfit = misfit
        self._dense: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        leaves = dict.fromkeys(leaf.index for slot in slots for leaf in slot.binding.leaves())
        self._leaves = tuple(leaves)
        self._first = self._leaves[0]
        self._states: dict[int, _State] = {}

    def __call__(self, *args: Any) -> Any:
        """Run the graph on Dynamo's arguments."""
        state = self._states.get(id(args[self._first]))
        if state is None or state.epoch != PACK_CACHE.epoch or not state.is_fresh(args):
            state = self._renew(args)
        if state.weights is None:
            return self._run_dense(args)
        weights = state.weights
        if state.lent:
            lent = dict(state.lent)
            weights = tuple(args[lent[i]] if i in lent else w for i, w in enumerate(weights))
        return self._run(*self._kept(args) + weights)

    def forget(self) -> None:
        """Let go of what slots made; they are asked again at the next call."""
        with self._lock:
            self._states = {}

    def _renew(self, args: tuple[Any, ...]) -> _State:
        """Pack what changed, or note that it has to run dense."""
        with self._lock:
            epoch = PACK_CACHE.epoch
            # Before packing: a write in between is noticed at the next call.
            snapshots = {place: PACK_CACHE.look(args[place]) for place in self._leaves}
            first, key = snapshots[self._first], id(args[self._first])
            last = self._states.get(key)
            is_fresh = look_at(self._leaves, tuple(snapshots.values()))
            state = _State(first, is_fresh, epoch, *self._weights(args, snapshots))
            # The key is an object's, and other objects may have the same memory.
            others = {k: s for k, s in self._states.items() if s.first is not first}
            alive = {k: s for k, s in others.items() if s.first.is_alive()}
            self._states = {**alive, key: state}
        for name, (values, reason) in state.misfits.items():
            if last is None or last.misfits.get(name) != (values, reason):
                self._misfit(name, reason, state.weights is not None)
        return state

    def _weights(
        self, args: tuple[Any, ...], snapshots: Mapping[int, Snapshot]
    ) -> tuple[tuple[Tensor | None, ...] | None, tuple[tuple[int, int], ...], _Misfits]:
        """See `_State`."""
        weights: list[Tensor | None] = []
        lent: list[tuple[int, int]] = []
        misfits: dict[str, tuple[Hashable, str]] = {}
        for slot in self._slots:
            leaves = slot.binding.leaves()
            tensors = live(slot.binding, args)
            try:
                weights.append(slot.weight(tensors))
            except Reject as reject:
                values = tuple(snapshots[leaf.index].fingerprint for leaf in leaves)
                reason = f"cannot be packed as {slot}: {reject.reason}"
                misfits[", ".join(leaf.name for leaf in leaves)] = values, reason
                if not slot.takes_dense:
                    return None, (), misfits
                if isinstance(slot.binding, Leaf) and is_plain(*tensors):
                    lent.append((len(weights), slot.binding.index))
                    weights.append(None)
                else:
                    weights.append(dense_copy(slot.binding, tensors))
        return tuple(weights), tuple(lent), misfits

    def _run_dense(self, args: Sequence[Any]) -> Any:
        if self._dense is None:
            self._dense = self._make_dense()
        return self._dense(*args)


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What picks these of a call's arguments, without a loop in Python."""
    if len(places) > 1:
        return operator.itemgetter(*places)
    if not places:
        return lambda args: ()
    (only,) = places
    return lambda args: (args[only],)
