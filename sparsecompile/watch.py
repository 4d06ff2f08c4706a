"""WatchedGraph: a compiled graph whose weights may come to fit other formats than they did."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.graph import Edit
from sparsecompile.lowering import Lowered
from sparsecompile.snapshot import is_plain
from sparsecompile.survey import Survey
from sparsecompile.weights import Binding, live

logger = logging.getLogger("sparsecompile")
CHANGE = 0.1
"""Change of a weight's share of zeros that is worth another look at it."""
EVERY = 16
"""Calls after which one weight is sampled although torch knows of no write into it."""
_SAMPLED = 64


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
        name: str(low.kernel.spec.format)
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
    What formats find in it then is asked by a thread of its own, once for a change. If there is a
    better one now the graph is compiled anew at the next call.

    Args:
        run: the compiled graph.
        weights: what it reads.
        args: the values that it was compiled for.
        again: compiles the graph for a call's arguments.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        weights: Sequence[Watched],
        args: Sequence[Any],
        again: Callable[[tuple[Any, ...]], Callable[..., Any]],
    ) -> None:
        self._run, self._weights, self._again = run, tuple(weights), again
        leaves = {leaf.index for weight in weights for leaf in weight.binding.leaves()}
        self._places = tuple(sorted(leaves))
        self._first = {place: _zeros(args[place]) for place in self._places}
        self._known = {id(args[p]): (args[p]._version, self._first[p]) for p in self._places}
        self._calls = 0
        self._fits = False
        self._looking = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        """Run the graph on Dynamo's arguments."""
        if self._fits:
            self._run, self._places, self._fits = self._again(args), (), False
        if self._places:
            self._calls += 1
            place = self._places[self._calls % len(self._places)]
            tensor = args[place]
            version = self._known.get(id(tensor), (-1, 0.0))[0]
            if version != tensor._version or self._calls % EVERY == 0:
                self._sample(place, args)
        return self._run(*args)

    def _sample(self, place: int, args: tuple[Any, ...]) -> None:
        """Look at the weights beside the calls if the zeros of a tensor have changed."""
        if not self._changed(place, args[place]):
            self._known[id(args[place])] = args[place]._version, self._share(place, args[place])
        elif self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, args=(args,), name="sparsecompile-look").start()

    def _share(self, place: int, tensor: Tensor) -> float:
        """The share of zeros in it when it was last looked at; other tensors count as the first."""
        return self._known.get(id(tensor), (0, self._first[place]))[1]

    def _changed(self, place: int, tensor: Tensor) -> bool:
        return abs(_zeros(tensor) - self._share(place, tensor)) >= CHANGE

    def _look(self, args: tuple[Any, ...]) -> None:
        try:
            changed = {p for p in self._places if self._changed(p, args[p])}
            for place in changed:
                self._known[id(args[place])] = args[place]._version, _zeros(args[place])
            for weight in self._weights:
                if any(leaf.index in changed for leaf in weight.binding.leaves()):
                    self._fits |= _fits_better(weight, live(weight.binding, args))
        finally:
            self._looking.release()


def _fits_better(weight: Watched, tensors: tuple[Tensor, ...]) -> bool:
    try:
        survey = weight.survey(tensors)
        found = str(survey.format())
    except Reject as reject:
        logger.info("%s has other zeros now: %s", weight.name, reject.reason)
        return False
    what = f"fits {found}; its graph is compiled anew at the next call"
    if found == weight.format:
        what = f"still fits {found}"
    logger.info(
        "%s holds %.1f%% zeros now, %.1f%% when it was compiled, and %s",
        weight.name,
        100 * survey.zeros,
        100 * weight.zeros,
        what,
    )
    return found != weight.format


@torch.no_grad()
def _zeros(tensor: Tensor) -> float:
    """Share of zeros in a sample."""
    # Odd steps meet all places of a group.
    steps = tuple(slice(None, None, size // _SAMPLED | 1) for size in tensor.shape)
    sample = tensor.detach()[steps]
    return 1 - int(sample.count_nonzero()) / max(1, sample.numel())
