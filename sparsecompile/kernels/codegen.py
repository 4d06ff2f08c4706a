"""Codegen: code generation for one kind of device; Device, one with a target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sparsecompile.component import Component
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import Sample
from sparsecompile.kernels.dense_copy import DenseCopy
from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.kernels.problem import Problem
from sparsecompile.kernels.region import Region
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Source
from sparsecompile.registry import Registry


@dataclass(frozen=True)
class Device:
    """Where a Compiler's kernels run, and what can be generated for it."""

    codegen: Codegen
    target: Target
    registry: Registry

    def check(self, spec: Any) -> None:
        """Return if some kernel can serve the spec.

        Raises:
            Reject: none can; every refusal is in the reason.
        """
        self.codegen.candidates(spec, self.target, self.registry)

    def lower(
        self, problems: Mapping[Problem[Any], Callable[[], Sample]]
    ) -> dict[Problem[Any], Lowering]:
        """See `Codegen.lower`."""
        return self.codegen.lower(problems, self.target, self.registry)


class Codegen(Component):
    """Code generation for one kind of device: spec -> candidates -> choice -> build -> kernel."""

    device: ClassVar[str]
    switches: ClassVar[bool] = False
    """Whether graphs that are compiled can be switched to another layout of their weights."""

    @property
    def name(self) -> str:
        """The device; unique in a registry."""
        return self.device

    @abstractmethod
    def sources_digest(self) -> str:
        """Stands for everything generated code depends on besides the spec."""

    def start(self) -> None:
        """Begin, beside the caller, what takes long and any kernel will need.

        Called where it is likely, while Dynamo traces a model, and as soon as a weight can be
        packed, while others are looked at.
        """

    def nothing_to_gain(
        self, shape: tuple[int, int], rows: tuple[int, ...], dtype: torch.dtype
    ) -> str:
        """Why no packed linear `(n, k)` can beat the dense one at these m; empty if one may."""
        return ""

    def dense_copy(self, dtype: torch.dtype) -> DenseCopy | None:
        """How a dense weight is kept where it needs a copy anyway; None for torch's own order."""
        return None

    def read_bandwidth(self) -> float | None:
        """Bytes a second that the device reads from memory, if known; nothing is measured now."""
        return None

    def op(self, kernel: Kernel[Any], problem: Problem[Any]) -> Any:
        """The op that a graph calls a kernel by, where it is not the operator's own; else None."""
        return None

    def region(self, region: Region, target: Target) -> tuple[int, Source]:
        """Build a region and make it known to the op; what graphs call it, and what was built.

        Raises:
            Reject: kernels of this device are no stages, or it writes rows otherwise.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
        raise Reject(f"kernels for {self.device} are no stages of regions")

    def serve(self, call: int, kernel: Kernel[Any]) -> None:
        """Let a call in graphs run this kernel from now on, on weights that have its layout.

        Where they have the layout of another kernel that serves the call, that one runs. Only for
        code generation that `switches`; else graphs call kernels by their keys.
        """
        raise NotImplementedError

    @abstractmethod
    def candidates(self, spec: Any, target: Target, registry: Registry) -> Sequence[Any]:
        """Everything that can serve the spec, best guess first.

        Raises:
            Reject: nothing can; every refusal is in the reason.
        """

    @abstractmethod
    def lower(
        self,
        problems: Mapping[Problem[Any], Callable[[], Sample]],
        target: Target,
        registry: Registry,
    ) -> dict[Problem[Any], Lowering]:
        """Choose a candidate for each problem; generate, build and load what was chosen.

        Args:
            problems: each with what makes something to measure it on, such as one of its weights.
            target: where they run.
            registry: what candidates are made of.

        Raises:
            Reject: there are no candidates.
            BuildError: the compiler is missing or failed.
            CacheError: the cache folder cannot be used.
        """
