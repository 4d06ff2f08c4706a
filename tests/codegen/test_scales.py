"""Scales of every dtype in C++, by every template and with every kind of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from kernel_cases import TEMPLATES, KernelCase, covering, drawn, supports

from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.kernel import Kernel
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry

SPECS = tuple(
    KernelSpec(default_registry().format(f"{name}scales={scales}]"), dtype, (), activations)
    for (name, activations), (scales, dtype) in product(
        (("dense/int4[", "float"), ("n_m[2:4]/int8[", "int8"), ("bitmap/int4[group=32,", "float")),
        (("float16", torch.bfloat16), ("float32", torch.float32)),
    )
)
TARGETS = tuple(
    target
    for target in (Target.host(), Target("cpu", Target.host().arch, "avx2"))
    if target.isa != Target.host().isa or target == Target.host()
)


@dataclass(frozen=True)
class ScalesCase:
    """A kernel for a level of instructions."""

    case: KernelCase
    target: Target

    def __str__(self) -> str:
        return f"{self.target.isa} {self.case}"

    def facts(self) -> Iterator[object]:
        """Every layout at every level with scales of every dtype, and with every structure."""
        template, spec = self.case.template, self.case.spec
        tiles = (self.target.isa, template, template.layout(self.case.schedule))
        yield from ((*tiles, part) for part in (spec.coding.scales, spec.format.structure))


def every_case() -> Iterator[ScalesCase]:
    for spec, template, target in product(SPECS, TEMPLATES, TARGETS):
        if supports(template, spec, target):
            for schedule in template.schedules(spec, target):
                yield ScalesCase(KernelCase(template, schedule, spec), target)


@pytest.mark.parametrize("scales", drawn(covering(every_case(), ScalesCase.facts), 8))
def test_scales(
    scales: ScalesCase,
    build_case: Callable[..., Kernel],
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
) -> None:
    case = scales.case
    kernel = build_case(case, target=scales.target)
    for n, k in ((37, 101), (80, 288)):
        packed = pack(kernel, n, k)
        assert packed.values["scales"].dtype == case.spec.coding.scales
        for dtype in {packed.dtype, torch.float32}:
            like = torch.empty(0, dtype=dtype)
            dense = torch.ops.sparsecompile.unpack(kernel.prepack(packed), like, n, k, kernel.key)
            assert torch.equal(dense, packed.unpack(dtype))
        for m in (1, 2, 7, 40):
            check_linear(kernel, packed, (m,), with_bias=m % 2 == 1)
