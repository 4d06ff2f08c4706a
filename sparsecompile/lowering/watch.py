"""WatchedGraph: a compiled graph whose weights may come to fit other formats than they did."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.detection.survey import Survey
from sparsecompile.errors import Reject
from sparsecompile.graph.edit import Edit
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.weights.expression import Binding, live
from sparsecompile.weights.snapshot import geometry, is_plain

logger = logging.getLogger("sparsecompile")
CHANGE = 0.1
"""Change of a weight's share of zeros that is worth another look at it."""
EVERY = 16
"""Calls after which one weight is sampled although torch knows of no write into it."""
_SAMPLED = 64


@dataclass(frozen=True, eq=False)
class Earlier:
    """What is known of a graph that is compiled anew.

    Attributes:
        names: of the model's own tensors, by `id`.
        looked: see `WatchedGraph`.
    """

    names: Mapping[int, tuple[str, ...]]
    looked: WeakIdKeyDictionary


@dataclass(frozen=True, eq=False)
class Watched:
    """A weight and what it was packed in, if it was.

    Attributes:
        name: in the model.
        binding: the weight.
        zeros: its share of zeros when it was compiled.
        format: its format, None where it was left dense.
        survey: looks at the live tensors of its leaves, in order.
    """

    name: str
    binding: Binding
    zeros: float
    format: str | None
    survey: Callable[[tuple[Tensor, ...]], Survey]


def watched_in(edit: Edit, lowered: Sequence[Lowered]) -> list[Watched]:
    """The weights of a graph that are what they are in the model, or a function of that."""
    formats = {
        name: low.facts.get("format")
        for low in lowered
        if low.kernel is not None
        for name in low.origins
    }
    found = []
    for name, c in edit.considered.items():
        if c.lossy or c.survey is None or c.binding is None or c.look is None:
            continue
        tensors = edit.weights.live(c.binding)
        if all(is_plain(tensor) and tensor.device.type == "cpu" for tensor in tensors):
            format = formats.get(name)
            found.append(Watched(c.weight, c.binding, c.survey.zeros, format, c.look))
    return found


class WatchedGraph:
    """Calls a compiled graph; when a weight's zeros have changed by much it is looked at again.

    Of one weight a call asks torch for the version, and samples its zeros when that has changed.
    What formats find in it then is asked by a thread of its own, once for a change. If one fits and
    its own does not, or it has none, the graph is compiled anew at the next call.

    Args:
        run: the compiled graph.
        weights: what it reads.
        args: the values that it was compiled for.
        names: of the model's own tensors, by their places among the arguments.
        looked: by storage and geometry, the share of zeros in a sample of what was looked at last.
        again: compiles the graph anew.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        weights: Sequence[Watched],
        args: Sequence[Any],
        names: Mapping[int, tuple[str, ...]],
        looked: WeakIdKeyDictionary,
        again: Callable[[Earlier], Callable[..., Any]],
    ) -> None:
        self._run, self._weights, self._again = run, tuple(weights), again
        self._names, self._looked = names, looked
        leaves = {leaf.index for weight in weights for leaf in weight.binding.leaves()}
        self._places = tuple(sorted(leaves))
        self._versions: dict[int, int] = {}
        for place in self._places:
            self._note(args[place])
        self._zeros = {place: _zeros(args[place]) for place in self._places}
        self._calls = 0
        self._fits = False
        self._looking = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        """Run the graph on Dynamo's arguments."""
        if self._fits:
            own = {id(args[place]): name for place, name in self._names.items()}
            self._run, self._places, self._fits = self._again(Earlier(own, self._looked)), (), False
        if self._places:
            self._calls += 1
            place = self._places[self._calls % len(self._places)]
            tensor = args[place]
            if self._versions.get(id(tensor)) != tensor._version or self._calls % EVERY == 0:
                self._sample(place, args)
        return self._run(*args)

    def _sample(self, place: int, args: tuple[Any, ...]) -> None:
        """Look at the weights beside the calls if the zeros of a tensor have changed."""
        tensor = args[place]
        if not self._changed(place, tensor):
            self._versions[id(tensor)] = tensor._version
        elif self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, args=(args,), name="sparsecompile-look").start()

    def _changed(self, place: int, tensor: Tensor) -> bool:
        """Whether it has other zeros than at its last look, or than what was compiled."""
        before = self._looked.get(tensor.untyped_storage(), {})
        before = before.get(geometry(tensor), self._zeros[place])
        return bool(abs(_zeros(tensor) - before) >= CHANGE)

    def _note(self, tensor: Tensor) -> None:
        self._versions[id(tensor)] = tensor._version
        self._looked.setdefault(tensor.untyped_storage(), {})[geometry(tensor)] = _zeros(tensor)

    def _look(self, args: tuple[Any, ...]) -> None:
        try:
            changed = {place for place in self._places if self._changed(place, args[place])}
            for place in changed:
                self._note(args[place])
            for weight in self._weights:
                if any(leaf.index in changed for leaf in weight.binding.leaves()):
                    self._fits |= _fits_another(weight, live(weight.binding, args))
        finally:
            self._looking.release()


def _fits_another(weight: Watched, tensors: tuple[Tensor, ...]) -> bool:
    try:
        survey = weight.survey(tensors)
        found = str(survey.format())
    except Reject as reject:
        logger.info("%s has other zeros now: %s", weight.name, reject.reason)
        return False
    fits = {finding.format for finding in survey.findings if finding.nbytes is not None}
    stays = weight.format in fits
    what = f"fits {found}; its graph is compiled anew at the next call"
    if stays:
        what = f"still fits {weight.format}"
    logger.info(
        "%s holds %.1f%% zeros now, %.1f%% when it was compiled, and %s",
        weight.name,
        100 * survey.zeros,
        100 * weight.zeros,
        what,
    )
    return not stays


@torch.no_grad()
def _zeros(tensor: Tensor) -> float:
    """Share of zeros in a sample."""
    # Odd steps meet all places of a group.
    steps = tuple(slice(None, None, size // _SAMPLED | 1) for size in tensor.shape)
    sample = tensor.detach()[steps]
    return 1 - int(sample.count_nonzero()) / max(1, sample.numel())
