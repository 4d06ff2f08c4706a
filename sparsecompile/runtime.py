"""CompiledGraph: packed weights attached to a graph, checked at every call."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.slot import Slot
from sparsecompile.stamps import IsFresh, take_stamps
from sparsecompile.weights import PACK_CACHE


@dataclass(frozen=True, eq=False)
class _State:
    """The live tensors at the last look, and what slots made of them; None: dense has to run."""

    first: weakref.ref[Tensor]
    is_fresh: IsFresh
    epoch: int
    weights: tuple[Tensor, ...] | None


class CompiledGraph:
    """What Dynamo calls: the packed graph while its weights are fresh.

    At every call the live tensors are compared with what was packed (same object, version and
    address). Where one differs its weight is packed again; where it no longer fits its format the
    dense original runs, until it fits again. One graph may serve several sets of weights: Dynamo
    guards on the structure of modules, so that the layers of a model compiled one by one share it.

    Args:
        run: the compiled packed graph; takes the kept arguments, then the slots' weights.
        keep: which of Dynamo's arguments it takes.
        slots: the weights that it reads instead of the model's own.
        dense: makes the compiled dense original, when it is first needed.
        misfit: is told, once a change, which weight does not fit the graph, and why.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        keep: Sequence[int],
        slots: Sequence[Slot],
        dense: Callable[[], Callable[..., Any]],
        misfit: Callable[[str, str], object],
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
        return self._run(*self._kept(args) + state.weights)

    def forget(self) -> None:
        """Let go of what slots made; they are asked again at the next call."""
        with self._lock:
            self._states = {}

    def _renew(self, args: tuple[Any, ...]) -> _State:
        """Pack what changed, or note that the dense original has to run."""
        with self._lock:
            epoch = PACK_CACHE.epoch
            # Stamped before packing: a write in between is noticed at the next call.
            is_fresh = take_stamps(args, self._leaves)
            weights, misfit = self._weights(args)
            alive = {k: s for k, s in self._states.items() if s.first() is not None}
            first = args[self._first]
            last = self._states.get(id(first))
            state = _State(weakref.ref(first), is_fresh, epoch, weights)
            self._states = {**alive, id(first): state}
        # Weights are also looked at anew where others were refreshed.
        if misfit and (last is None or last.weights is not None or not last.is_fresh(args)):
            self._misfit(*misfit)
        return state

    def _weights(
        self, args: tuple[Any, ...]
    ) -> tuple[tuple[Tensor, ...] | None, tuple[str, str] | None]:
        """What the slots make of the live tensors; or None, and which does not fit, and why."""
        weights = []
        for slot in self._slots:
            try:
                weights.append(slot.weight([args[leaf.index] for leaf in slot.binding.leaves()]))
            except Reject as reject:
                names = ", ".join(leaf.name for leaf in slot.binding.leaves())
                return None, (names, f"cannot be packed as {slot}: {reject.reason}")
        return tuple(weights), None

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
