"""Calibration: a model runs on batches, a block at a time, and linears are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.blocks import Blocks, find_blocks
from sparsecompile.sparsification.hidden import Hidden
from sparsecompile.sparsification.moments import Moments, gather
from sparsecompile.sparsification.progress import Progress

_REFUSALS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError)
"""What models raise of inputs that they do not take."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Linears that are calibrated together.

    Attributes:
        names: of the linears.
        moments: looks at what they read, with the weights that the model has when it is called.
    """

    names: tuple[str, ...]
    moments: Callable[[], dict[str, Moments]]


class Calibration:
    """Batches, and a model that runs on them.

    Args:
        model: the model.
        batches: each a tensor, a tuple of arguments or a mapping of keyword arguments.
        memory: bytes of what blocks read that may be kept in memory.
        progress: counts what has run.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[object], memory: int, progress: Progress
    ) -> None:
        self._model, self._batches, self._memory = model, list(batches), memory
        self._progress = progress
        if not self._batches:
            raise OptionError("calibration", "calibration has no batch: give one at least")

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, i: int) -> object:
        """A batch as it was given."""
        return self._batches[i]

    def stages(self, linears: Mapping[str, nn.Module]) -> Iterator[Stage]:
        """Blocks in turn, then what is in none; of a model without blocks all linears at once.

        What is done to the weights of a stage before the next is asked for, later ones see.

        Raises:
            OptionError: the model does not run on a batch, or a linear reads what is not finite.
        """
        first = find_blocks(self._model, lambda: self.run(0), tuple(linears.values()))
        rest = dict(linears)
        if first is not None:
            for stage in self._through(first, linears):
                for name in stage.names:
                    del rest[name]
                yield stage
        if rest:
            self._progress.expect(len(self._batches))
            yield self._stage(rest, self.run)

    def _through(self, blocks: Blocks, linears: Mapping[str, nn.Module]) -> Iterator[Stage]:
        # At the entrance, in every block for moments, and for what all but the last give.
        self._progress.expect(2 * len(blocks.modules) * len(self._batches))
        with Hidden(self._memory) as hidden:
            others = []
            for i in self._progress.track(len(self._batches)):
                inputs = blocks.first_inputs(partial(self.run, i))
                hidden.append(inputs.pop(blocks.hidden))
                others.append(inputs)

            def call(block: nn.Module, i: int) -> Tensor:
                with _refusals(i):
                    return blocks.call(block, hidden[i], others[i])

            last = blocks.modules[-1]
            for block in blocks.modules:
                held = {id(m) for m in block.modules()}
                inside = {name: m for name, m in linears.items() if id(m) in held}
                if inside:
                    yield self._stage(inside, partial(call, block))
                else:
                    self._progress.expect(-len(hidden))
                for i in self._progress.track(len(hidden) if block is not last else 0):
                    hidden[i] = call(block, i)

    def _stage(self, linears: Mapping[str, nn.Module], call: Callable[[int], object]) -> Stage:
        return Stage(tuple(linears), lambda: self._moments(linears, call))

    def _moments(
        self, linears: Mapping[str, nn.Module], call: Callable[[int], object]
    ) -> dict[str, Moments]:
        runs = (partial(call, i) for i in self._progress.track(len(self._batches)))
        found = gather(linears, runs)
        for name, moments in found.items():
            if not moments.finite:
                raise OptionError(
                    "calibration",
                    f"what {name!r} reads in calibration holds NaN or infinity: look for the batch "
                    "or the layer before it that makes them",
                )
        return found

    def run(self, i: int) -> object:
        """What the model gives for a batch."""
        batch = self._batches[i]
        with _refusals(i):
            if isinstance(batch, Mapping):
                return self._model(**batch)
            return self._model(*(batch if isinstance(batch, (tuple, list)) else (batch,)))


@contextmanager
def _refusals(i: int) -> Iterator[None]:
    """Says which batch it was that the model does not run on."""
    try:
        yield
    except _REFUSALS as error:
        raise OptionError(
            "calibration",
            f"the model does not run on batch {i} of the calibration: "
            f"{type(error).__name__}: {error}; a batch is a tensor, a tuple of arguments or a "
            "mapping of keyword arguments",
        ) from error


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without a cache of keys, then as it was."""
    training = [module for module in model.modules() if module.training]
    config: Any = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    model.eval()
    if cached:
        config.use_cache = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
        if cached:
            config.use_cache = cached
