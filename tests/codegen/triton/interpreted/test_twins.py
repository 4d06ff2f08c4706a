"""The C++ kernels and the Triton kernels of a spec agree on the same packed tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from linear_law import sparse_weight
from torch import Tensor
from triton_cases import build

from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.triton.start import start_linear, start_unpack
from sparsecompile.kernels import ops
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import default_registry


@pytest.mark.parametrize(
    ("name", "dtype", "activations"),
    [
        ("dense/int8", torch.float32, "int8"),
        ("n_m[2:4]/int4[group=32]", torch.float16, "float"),
        ("bitmap", torch.float16, "float"),
        ("block[16x16]", torch.float32, "float"),
        ("csr", torch.float16, "float"),
    ],
)
def test_twins(
    name: str,
    dtype: torch.dtype,
    activations: str,
    shared_cache: Path,
    check_launch: Callable[..., tuple[Tensor, float]],
) -> None:
    registry, host = default_registry(), Target.host()
    spec = KernelSpec(registry.format(name), dtype, activations=activations)
    packed = spec.format.pack(sparse_weight(spec.format.structure, 37, 140, dtype))
    ours, template = build(spec), GenericLinear()
    theirs = CppCodegen().build(spec, template, template.schedules(spec, host)[0], host, registry)
    like, layout = torch.empty(0, dtype=dtype), theirs.prepack(packed)
    dense = torch.ops.sparsecompile.unpack(layout, like, 37, 140, theirs.key)
    assert torch.equal(start_unpack(ours, ours.prepack(packed), like, 37, 140, 0, {}), dense)
    x = torch.randn(5, 140).to(dtype)
    native = ops.linear(x, layout[: ops.HEADER_BYTES], None, (), 37, theirs.key)
    for launch in ours.launches[1:]:
        _, allowed = check_launch(ours, launch, packed, (5,), False)
        weight = ours.prepack(packed)
        y = start_linear(ours, launch, x, weight, None, (None, None), 37, lambda f: f, {})
        assert float((y.double() - native.double()).abs().max()) <= 2 * allowed
