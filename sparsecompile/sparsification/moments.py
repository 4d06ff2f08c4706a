"""Moments of what linears read: all that methods know of calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
        self._second += rows.t() @ rows
        self._first += rows.sum(0, dtype=torch.float64)
        self.rows += len(rows)

    @property
    def second(self) -> Tensor:
        """The mean of `x^T x`, `[k, k]` float64; without rows that of inputs that are all alike."""
        if not self.rows:
            return torch.eye(len(self._second), dtype=torch.float64, device=self._second.device)
        return self._second / self.rows

    @property
    def mean(self) -> Tensor:
        """The mean of `x`, `[k]` float64."""
        return self._first / max(self.rows, 1)

    @property
    def finite(self) -> bool:
        """Whether no input was NaN or infinite, or so large that its square is."""
        return bool(self._second.isfinite().all())


@contextmanager
def gather(linears: Mapping[str, nn.Linear]) -> Iterator[dict[str, Moments]]:
    """Moments of what linears read while this is open, by their names.

    Linears that read the same tensor one after the other, such as q, k and v, have the same
    `Moments`. Those that are not called have some without rows.
    """
    found: dict[str, Moments] = {}
    last: tuple[Tensor | None, Moments | None] = (None, None)

    def count(name: str, linear: nn.Linear, inputs: Tensor) -> None:
        nonlocal last
        seen, counted = last
        if inputs is not seen:
            counted = None
        moments = found.setdefault(name, counted or _empty(linear))
        if moments is not counted:
            moments.add(inputs)
        last = inputs, moments

    def hook(name: str) -> Any:
        # After the call: what a linear refuses is not counted.
        def call(linear: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            count(name, linear, args[0] if args else kwargs["input"])

        return call

    handles = [
        linear.register_forward_hook(hook(name), with_kwargs=True)
        for name, linear in linears.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        last = None, None
    for name, linear in linears.items():
        found.setdefault(name, _empty(linear))


def _empty(linear: nn.Linear) -> Moments:
    return Moments(linear.in_features, linear.weight.device)
