"""Blocks: the stack of modules of a model that call one another in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparsecompile.sparsification.moments import Stop

Inputs = dict[int | str, Any]
"""Of one call, by position or by name."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Modules of which each gets the output of the one before, and all else as the first did.

    Attributes:
        modules: in the order of their calls.
        hidden: which input that is.
        first_of_several: whether outputs are tuples that begin with it.
    """

    modules: tuple[nn.Module, ...]
    hidden: int | str
    first_of_several: bool

    def call(self, module: nn.Module, hidden: Tensor, others: Inputs) -> Tensor:
        """The output of a block."""
        inputs = {**others, self.hidden: hidden}
        places = sorted(key for key in inputs if isinstance(key, int))
        names = {key: value for key, value in inputs.items() if isinstance(key, str)}
        output = module(*(inputs[place] for place in places), **names)
        found: Tensor = output[0] if self.first_of_several else output
        return found

    def first_inputs(self, run: Callable[[], object]) -> Inputs:
        """What the first block is called with when the model runs, which ends there."""
        caught: list[Inputs] = []

        def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(_inputs(args, kwargs))
            raise Stop

        handle = self.modules[0].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with suppress(Stop):
                run()
        finally:
            handle.remove()
        return caught[0]


@dataclass(frozen=True, eq=False)
class _Called:
    module: nn.Module
    inputs: Inputs
    output: Any


def find_blocks(
    model: nn.Module, run: Callable[[], object], targets: Sequence[nn.Module]
) -> Blocks | None:
    """The stack with the most blocks that hold targets, at least two; None where there is none.

    Args:
        model: the model.
        run: runs it once.
        targets: modules that are to be reached through blocks.
    """
    calls: list[_Called] = []

    def record(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(_Called(m, _inputs(args, kwargs), output))

    hook: Any = record
    kinds = (nn.ModuleList, nn.Sequential)
    stacks = [tuple(m.children()) for m in model.modules() if isinstance(m, kinds)]
    members = {m for stack in stacks for m in stack}
    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in members]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    held = {m for m in members if not set(targets).isdisjoint(m.modules())}
    best, most = None, 1
    for stack in stacks:
        blocks, count = _chain(stack, calls), sum(m in held for m in stack)
        if blocks is not None and count > most:
            best, most = blocks, count
    return best


def _chain(members: tuple[nn.Module, ...], calls: Sequence[_Called]) -> Blocks | None:
    """Modules, if each is called once with the output of the one before it."""
    own = [call for call in calls if call.module in members]
    if len(own) < 2 or tuple(call.module for call in own) != members:
        return None
    outputs = [call.output for call in own]
    several = isinstance(outputs[0], tuple)
    if several:
        outputs = [output[0] for output in outputs if isinstance(output, tuple)]
    if len(outputs) != len(own) or not all(isinstance(output, Tensor) for output in outputs):
        return None
    hidden = next((key for key, v in own[1].inputs.items() if v is outputs[0]), None)
    if hidden is None or hidden not in own[0].inputs:
        return None
    for before, call in zip(outputs, own[1:], strict=False):
        others = {key: v for key, v in call.inputs.items() if key != hidden}
        first = {key: v for key, v in own[0].inputs.items() if key != hidden}
        same = others.keys() == first.keys() and all(_is(v, first[k]) for k, v in others.items())
        if call.inputs.get(hidden) is not before or not same:
            return None
    return Blocks(members, hidden, several)


def _is(value: object, other: object) -> bool:
    plain = (bool, int, float, str, type(None))
    return value is other or (isinstance(value, plain) and value == other)


def _inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    inputs: Inputs = dict(enumerate(args))
    inputs.update(kwargs.items())
    return inputs
