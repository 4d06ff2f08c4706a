"""TritonTemplate: what all Triton templates share, whatever their operator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch

from sparsecompile.codegen.triton.fragment import ELEMENTS
from sparsecompile.codegen.triton.launch import Launch
from sparsecompile.codegen.triton.signature import Signature
from sparsecompile.errors import Reject
from sparsecompile.kernels.spec import S, Schedule, Spec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template

FIRST_CAPABILITY = (8, 0)


class TritonTemplate(Template[S]):
    """Renders modules of `@triton.jit` functions, one for each range of m."""

    language = "triton"
    usual: ClassVar[Mapping[str, int]]
    """Sizes, by their names in `Problem.axes`, for which functions are looked at."""

    def examples(self, dtype: torch.dtype) -> Sequence[S]:
        """Specs to look at, where there is no weight whose formats say what may come."""
        return ()

    @abstractmethod
    def launches(self, spec: S, schedule: Schedule) -> tuple[Launch, ...]:
        """How each range of m is started, by rising m, the last without an end."""

    @abstractmethod
    def signature(self, spec: S, launch: Launch, shape: tuple[int, ...]) -> Signature:
        """The arguments of the function that a launch starts, for sizes that are aligned.

        Args:
            spec: what is computed.
            launch: how.
            shape: as in `Problem.shape`.
        """

    def schedules(self, spec: S, target: Target) -> Sequence[Schedule]:
        """The default."""
        return (self.default(spec, target),)

    @abstractmethod
    def default(self, spec: S, target: Target) -> Schedule:
        """The best guess."""

    def search(self, spec: S, target: Target) -> Sequence[Schedule]:
        """The default, and those of `variations`; a function that spills is not measured."""
        default = self.default(spec, target)
        more = (dict(default.choices) | choices for choices in self.variations(target))
        return tuple(dict.fromkeys((default, *map(Schedule.of, more))))

    def variations(self, target: Target) -> Iterable[dict[str, int]]:
        """In what the schedules of a full search differ from the default.

        Functions are measured one by one: in one schedule all of them may differ at once.
        """
        return ()


def check_target(spec: Spec, target: Target) -> None:
    """Return if the target is a GPU that Triton compiles for, and has numbers of this dtype.

    Raises:
        Reject: another device, an old GPU, or no such numbers.
    """
    if target.device != "cuda":
        raise Reject(f"Triton is for GPUs, not for {target.device}")
    gpu = target.gpu
    if gpu.vendor == "nvidia" and gpu.capability < FIRST_CAPABILITY:
        raise Reject(f"needs sm_80, this is {target.arch}")
    if spec.dtype not in ELEMENTS:
        raise Reject(f"{spec.dtype} activations have no Triton type")
