"""Library calls for a spec: Extern; PackedExtern, which reads a layout of its own; InlineExtern."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor

from sparsecompile.component import Component
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.spec import KernelSpec, S, Schedule
from sparsecompile.kernels.target import Target


class Extern(Component, Generic[S]):
    """A library call for a spec, a candidate beside the templates."""

    name: ClassVar[str]
    operator: ClassVar[str] = KernelSpec.operator
    """Whose nodes it serves."""

    @abstractmethod
    def supports(self, spec: S, target: Target) -> None:
        """Return if the library can serve the spec on the target.

        Raises:
            Reject: it cannot.
        """


class PackedExtern(Extern[S], Packer[S]):
    """A library call that reads a layout of its own."""

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What `call` takes: the layout, or what the library makes of it on the device.

        Called once, with the layout on the device that it will be used on.

        Args:
            layout: what `prepack` gave, `[bytes]` uint8.
            shape: `(n, k)` of the weight.
            dtype: of the weight.
        """
        return layout

    def finished_bytes(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> int:
        """Bytes of what `finish` makes, for where no such device is at hand to make it."""
        return layout.numel()

    @abstractmethod
    def call(
        self,
        x: Tensor,
        layout: Tensor,
        bias: Tensor | None,
        n: int,
        schedule: Schedule,
    ) -> Tensor:
        """`x @ W.T + bias`, without the epilogue, which torch computes behind it.

        Args:
            x: `[m, k]`.
            layout: what `finish` gave.
            bias: `[n]`.
            n: out features.
            schedule: one of `search`.

        Returns:
            `[m, n]` in x's dtype.
        """

    def unpack(
        self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype, schedule: Schedule
    ) -> Tensor:
        """The dense weight `[n, k]` that a layout stands for, which gradients need.

        The product with the identity: exact, but a NaN or infinity spreads over its row.

        Args:
            layout: what `finish` gave.
            shape: `(n, k)` of the weight.
            dtype: of the weight.
            schedule: one of `search`.
        """
        n, k = shape
        identity = torch.eye(k, dtype=dtype, device=layout.device)
        return self.call(identity, layout, None, n, schedule).t()


class InlineExtern(Extern[S], Packer[S]):
    """A library call that graphs make themselves, in the place of the operator's op.

    It reads no layout, has one schedule, and serves every m. Inductor looks into it.
    """

    def schedules(self, spec: S, target: Target) -> Sequence[Schedule]:
        """One: nothing is to be chosen."""
        return (Schedule(),)

    @abstractmethod
    def call(
        self, problem: Problem[S], given: Mapping[str, Any]
    ) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        """The function that a graph calls, and its arguments.

        Args:
            problem: one that it fits.
            given: what the operator's pattern captures, by name: nodes, or what stands for them.
        """

    def run(self, problem: Problem[S], given: Mapping[str, Any]) -> Callable[[], Tensor]:
        """The call on tensors, as it is in a compiled graph."""
        function, args = self.call(problem, given)
        return partial(function, *args)
