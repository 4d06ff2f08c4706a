"""Scales of every dtype in C++, by every template and with every kind of tiles."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from kernel_cases import TEMPLATES, KernelCase, supports

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


def cases() -> list[Any]:
    """The first schedule on the host for a quick run, and the others."""
    found = []
    for spec, template, target in product(SPECS, TEMPLATES, TARGETS):
        if not supports(template, spec, target):
            continue
        for i, schedule in enumerate(template.schedules(spec, target)):
            marks = (pytest.mark.slow,) if i or target != Target.host() else ()
            case = KernelCase(template, schedule, spec)
            found.append(pytest.param(case, target, id=f"{target.isa} {case}", marks=marks))
    return found


@pytest.mark.parametrize(("case", "target"), cases())
def test_scales(
    case: KernelCase,
    target: Target,
    build_case: Callable[..., Kernel],
    pack: Callable[..., Packed],
    check_linear: Callable[..., None],
) -> None:
    kernel = build_case(case, target=target)
    for n, k in ((37, 101), (80, 288)):
        packed = pack(kernel, n, k)
        assert packed.values["scales"].dtype == case.spec.coding.scales
        for dtype in {packed.dtype, torch.float32}:
            like = torch.empty(0, dtype=dtype)
            dense = torch.ops.sparsecompile.unpack(kernel.prepack(packed), like, n, k, kernel.key)
            assert torch.equal(dense, packed.unpack(dtype))
        for m in (1, 2, 7, 40):
            check_linear(kernel, packed, (m,), with_bias=m % 2 == 1)
