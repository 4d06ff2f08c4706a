"""Workbench: a device as a Tuner sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecompile.codegen.tuning.measure import Contestant
from sparsecompile.codegen.tuning.variant import Function, Variant
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.problem import Problem

if TYPE_CHECKING:
    from sparsecompile.kernels.cost import Cost


@dataclass(frozen=True)
class Limits:
    """The roofline of a device.

    Attributes:
        bandwidth: bytes a second from memory.
        rates: operations a second by `Cost.kind`.
    """

    bandwidth: float
    rates: Mapping[str, float]

    def seconds(self, cost: Cost, rows: int, relative_rate: float = 1.0) -> float:
        """What a call with this many rows takes at least; see `Packer.relative_rate`."""
        return cost.seconds(rows, self.bandwidth, self.rates[cost.kind] * relative_rate)


@dataclass(frozen=True)
class Guess:
    """What serves a problem where nothing is measured.

    Attributes:
        ranges: by rising m.
        basis: what it rests on, in words; empty where there is nothing to say.
    """

    ranges: tuple[Range, ...]
    basis: str = ""


class Workbench(ABC):
    """Where candidates are measured, and what is known of it where they are not."""

    @property
    @abstractmethod
    def device(self) -> torch.device | None:
        """Where candidates run; None where the target is not at hand: nothing can be measured."""

    @abstractmethod
    def facts(self) -> Mapping[str, object]:
        """What timings depend on besides the problem; GPUs are named as `gpu`.

        Raises:
            BuildError: nothing can be compiled here.
        """

    @abstractmethod
    def limits(self, *, measure: bool) -> Limits:
        """For the cost model.

        Args:
            measure: whether they may be measured; else what is known serves.
        """

    def rates(self) -> Mapping[str, float]:
        """Operations a second by `Cost.kind` that were ever measured; nothing is measured now."""
        return {}

    @abstractmethod
    def is_cold(self, rows: int) -> bool:
        """Whether calls with this many rows are measured with the weight in memory."""

    @abstractmethod
    def contestant(self, run: Callable[[], object], weight: Tensor, rows: int) -> Contestant:
        """A call, ready to be measured.

        Args:
            run: the call.
            weight: what it reads.
            rows: m.
        """

    @property
    def builds(self) -> bool:
        """Whether candidates can be built that are not in the cache folder."""
        return True

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What a candidate raises that does not run here: it is left out, and the reason kept."""
        return ()

    def faults(self, problem: Problem, functions: Sequence[Function]) -> dict[str, str]:
        """Candidates of a search that are not worth a measurement, each with the reason."""
        return {}

    @abstractmethod
    def guess(self, problem: Problem, variants: Sequence[Variant], contents: Sample) -> Guess:
        """The cost model's word.

        Args:
            problem: what is needed.
            variants: those that may win, the most promising first.
            contents: a weight.
        """
