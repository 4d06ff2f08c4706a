"""KeepZeros: zeros of weights stay zero while a model is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecompile.errors import OptionError
from sparsecompile.sparsification.pattern import Pattern
from sparsecompile.sparsification.schedule import SparseSchedule
from sparsecompile.sparsification.targets import find_targets


class KeepZeros:
    """Hooks of an optimiser that keep zeros of a model's linears, or make more on a schedule.

    Before a step gradients of zeros are cleared, so that no momentum gathers; after it weights are,
    which weight decay or an older momentum may have moved. For any `torch.optim.Optimizer`; of a
    wrapper such as accelerate's give the optimiser in it. Zeros are all that is kept: after a
    model was loaded a new instance goes on, at `step` where there is a schedule.

    Args:
        model: its linears, but for output heads and what is tied to an embedding.
        optimizer: has their weights.
        pattern: with a schedule, what is to be kept in the end, such as `unstructured(0.8)`: the
            share in it is that of the last update. By magnitude, of the weights as they then are.
        schedule: how sparse they are when.

    Raises:
        OptionError: a schedule without a pattern that has a share, or the other way round.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        pattern: str | None = None,
        schedule: SparseSchedule | None = None,
    ) -> None:
        parsed = None if pattern is None else Pattern.parse(pattern)
        share = None if parsed is None else parsed.share
        if share != (None if schedule is None else schedule.last):
            raise OptionError(
                "schedule",
                f"pattern {pattern!r} and {schedule} do not end at one share of zeros: a schedule "
                "needs a pattern such as 'unstructured(0.8)', with its own last share",
            )
        self.step = 0
        self._pattern, self._schedule = parsed, schedule
        self._targets = find_targets(model, pattern or "unstructured(0)")
        self._weights = [target.linear.weight for target in self._targets]
        self._masks = [weight == 0 for weight in self._weights]
        hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        self._hooks = hooks

    def remove(self) -> None:
        """Let zeros change again."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        for weight, mask in zip(self._weights, self._masks, strict=True):
            if weight.grad is not None:
                weight.grad.masked_fill_(mask, 0)

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        self.step += 1
        if self._schedule is not None and self._schedule.is_update(self.step):
            cut = self._chooser(self._schedule.share(self.step))
            self._masks = [t.turned(~cut(t.weight)) for t in self._targets]
        for weight, mask in zip(self._weights, self._masks, strict=True):
            weight.masked_fill_(mask, 0)

    def _chooser(self, share: float) -> Callable[[Tensor], Tensor]:
        assert self._pattern is not None
        return replace(self._pattern, share=share).mask
