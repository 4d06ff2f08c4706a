"""Moments of what linears read: all that methods know of calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

_SIDE = 256
"""Columns of a product of which the half below the diagonal is not computed."""


class Moments:
    """Sums over the rows x of an input: `x^T x` in float64, and `x`.

    Attributes:
        rows: how many there were.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self._second = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        self._first = torch.zeros(columns, dtype=torch.float64, device=device)
        self.rows = 0

    def add(self, inputs: Tensor) -> None:
        """Count the rows of `[..., k]`; products are of float32."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        for a in range(0, rows.shape[1], _SIDE):
            self._second[a : a + _SIDE, a:] += rows[:, a : a + _SIDE].t() @ rows[:, a:]
        self._first += rows.sum(0, dtype=torch.float64)
        self.rows += len(rows)

    @property
    def second(self) -> Tensor:
        """The mean of `x^T x`, `[k, k]` float64; without rows that of inputs that are all alike."""
        if not self.rows:
            return torch.eye(len(self._second), dtype=torch.float64, device=self._second.device)
        return (self._second.triu() + self._second.triu(1).t()) / self.rows

    @property
    def mean(self) -> Tensor:
        """The mean of `x`, `[k]` float64."""
        return self._first / max(self.rows, 1)

    @property
    def finite(self) -> bool:
        """Whether no input was NaN or infinite, or so large that its square is."""
        return bool(self._second.isfinite().all())


class Stop(Exception):  # noqa: N818 - not an error
    """Leaves a model once all is seen that was to be."""


def gather(
    linears: Mapping[str, nn.Module], runs: Iterable[Callable[[], object]]
) -> dict[str, Moments]:
    """Moments of what linears read in all of some runs, by their names.

    Linears that read the same tensor one after the other, such as q, k and v, have the same
    `Moments`. Those that are not called have some without rows.
    """
    found: dict[str, Moments] = {}
    called: list[str] = []
    last: tuple[Tensor | None, Moments | None] = (None, None)
    end = ""

    def count(name: str, linear: nn.Module, inputs: Tensor) -> None:
        nonlocal last
        if inputs.shape[-1] != _columns(linear):
            return  # The linear says so.
        seen, counted = last
        if inputs is not seen:
            counted = None
        moments = found.setdefault(name, counted or _empty(linear))
        if moments is not counted:
            moments.add(inputs)
        last = inputs, moments
        called.append(name)
        if name == end:
            raise Stop

    def hook(name: str) -> Any:
        def call(linear: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            count(name, linear, args[0] if args else next(iter(kwargs.values())))

        return call

    handles = [
        linear.register_forward_pre_hook(hook(name), with_kwargs=True)
        for name, linear in linears.items()
    ]
    try:
        for run in runs:
            with suppress(Stop):
                run()
            if sorted(called) == sorted(linears):
                # Each once: what comes behind the last of them is of no use.
                end = called[-1]
            called.clear()
            last = None, None
    finally:
        for handle in handles:
            handle.remove()
    return {name: found.get(name) or _empty(linear) for name, linear in linears.items()}


def _empty(linear: Any) -> Moments:
    return Moments(_columns(linear), linear.weight.device)


def _columns(linear: Any) -> int:
    """Of what it reads, for GPT-2's `Conv1D` too."""
    columns: int = linear.in_features if isinstance(linear, nn.Linear) else linear.nx
    return columns
