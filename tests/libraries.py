"""A library call that computes where it is called, for tests: on CPUs, and on fake GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.formats.symbols import m
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.cost import Cost
from sparsecompile.kernels.extern import PackedExtern
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry


@dataclass(eq=False)
class Turned(PackedExtern):
    """Its layout is the dense weight turned around and doubled, which `finish` undoes.

    Attributes:
        share: what it costs, as a share of the dense linear; of many rows the half of that.
        family: structures that it serves.
        called: schedules that it was called with.
    """

    name = "turned"
    share: float = 0.1
    family: str = "n_m"
    called: list[Schedule] = field(default_factory=list)

    def supports(self, spec: KernelSpec, target: Target) -> None:
        if spec.format.structure.family != self.family or not spec.format.codec.lossless:
            raise Reject(f"{self.name} multiplies {self.family}, this is {spec.format}")

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        return (Schedule.of({"way": 0}),)

    def search(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        return tuple(Schedule.of({"way": i}) for i in range(3))

    def cost(self, spec: KernelSpec, schedule: Schedule, weight: Contents) -> Cost:
        (n, k), size = weight.shape, spec.dtype.itemsize
        moved = self.share * (n * k + m * (n + k)) * size
        return Cost(moved, self.share * m * n * k, str(spec.dtype).removeprefix("torch."))

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        turned = 2 * packed.unpack().t()
        return turned.contiguous().view(-1).view(torch.uint8)

    def finish(self, layout: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return (layout.view(dtype) / 2).view(torch.uint8)

    def call(
        self, x: Tensor, layout: Tensor, bias: Tensor | None, n: int, schedule: Schedule
    ) -> Tensor:
        assert x.numel(), "libraries refuse what is empty"
        assert n
        self.called.append(schedule)
        return F.linear(x, layout.view(x.dtype).view(x.shape[1], n).t(), bias)
