"""Kernel: what was generated and built for a spec; Range and Lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import torch
from torch import Tensor

from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.packer import Packer
from sparsecompile.kernels.spec import S, Schedule
from sparsecompile.kernels.template import Source
from sparsecompile.kernels.trial import Trial
from sparsecompile.registry import Registry


@dataclass(frozen=True)
class Range:
    """Which function of a kernel serves which rows.

    Attributes:
        largest_m: the last m it serves, or None for all that are left.
        source: name of the source that it is in; empty of a library call.
        symbol: its name there, or that of the library call.
        schedule: of that source.
        dense: whether the dense linear of torch runs instead, where its weight is at hand.
        stage_m: for how many rows it can be a stage of a region; 0: never.
    """

    largest_m: int | None
    source: str
    symbol: str
    schedule: Schedule
    dense: bool = False
    stage_m: int = 0

    def __str__(self) -> str:
        """`m <= 8: sc_linear_decode of strips_...`, `any m: cusparselt alg_id=0`."""
        where = f"m <= {self.largest_m}" if self.largest_m is not None else "any m"
        called = f"{self.symbol} {self.schedule}".strip()
        what = f"{self.symbol} of {self.source}" if self.source else called
        return f"{where}: {'dense' if self.dense else what}"


@dataclass(frozen=True, eq=False)
class Kernel(Generic[S]):
    """A kernel that is built, loaded and known to the op `sparsecompile::linear` by its key.

    Attributes:
        key: what graphs call it.
        spec: what it computes.
        template: makes its layout: a `Template`, or a library call.
        schedule: of that template.
        sources: everything that was generated for it, the layout's own first; none for a library
            call.
        ranges: by rising m.
        registry: what it was made of.
        relayout: makes the layout out of what `template.prepack` returns, if that is not it.
        device: where it runs: `cpu` or `cuda`.
        origins: by source, the cache folder that its library is from, empty where this process has
            built it; none for what is not built ahead.
    """

    key: int
    spec: S
    template: Packer[Any]
    schedule: Schedule
    sources: tuple[Source, ...]
    ranges: tuple[Range, ...]
    registry: Registry
    relayout: Callable[[Tensor], Tensor] | None = None
    device: str = "cpu"
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """Name of the layout that it reads."""
        return self.template.layout(self.schedule)

    @property
    def wants_dense(self) -> bool:
        """Whether the dense linear serves some rows."""
        return any(r.dense for r in self.ranges)

    def range_at(self, m: int) -> Range:
        """What serves this m."""
        return next(r for r in self.ranges if r.largest_m is None or m <= r.largest_m)

    def prepack(self, packed: Packed) -> Tensor:
        """The weight as this kernel reads it: `[bytes]` uint8, on the CPU."""
        layout = self.template.prepack(packed, self.schedule, self.registry)
        return self.relayout(layout) if self.relayout is not None else layout

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """What the op takes: what `prepack` gave, on the device, or what a library makes of it.

        Args:
            layout: on the device that it will be used on.
            shape: `(n, k)` of the weight.
            dtype: of the weight.
        """
        return layout


@dataclass(frozen=True)
class Lowering:
    """What became of a problem.

    Attributes:
        kernel: the kernel, or None where the dense linear serves every m.
        trials: what was measured, now or at an earlier time.
        reason: why it was chosen.
        dropped: candidates that were not measured after all, each with the reason.
        is_choice: false where dense serves because no candidate could be measured.
        is_open: whether another layout may be the best one where other m come too.
    """

    kernel: Kernel[Any] | None
    trials: tuple[Trial, ...]
    reason: str
    dropped: tuple[tuple[str, str], ...] = ()
    is_choice: bool = True
    is_open: bool = False

    def because(self, why: str) -> Lowering:
        """With one more reason."""
        return replace(self, reason=f"{self.reason}; {why}")
