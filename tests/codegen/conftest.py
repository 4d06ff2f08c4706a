"""Weights, kernels and the error bound for tests of code generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import KernelCase
from linear_law import check_law, sparse_weight
from packing import sparse_
from torch import Tensor, nn

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.errors import Reject
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry, default_registry


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """The cache of all tests that only want a kernel."""
    return Cache().folder


@pytest.fixture(scope="session")
def registry() -> Registry:
    return default_registry()


@pytest.fixture(scope="module")
def model() -> nn.Linear:
    """A linear that is packed; no test changes it."""
    return sparse_(nn.Linear(64, 32)).requires_grad_(False)


@pytest.fixture(scope="session")
def build_case(shared_cache: Path, registry: Registry) -> Callable[..., Kernel]:
    """The kernel of a case; with a symbol, that function serves every m."""
    codegen = CppCodegen()

    def build(case: KernelCase, symbol: str | None = None, target: Target | None = None) -> Kernel:
        where = target or Target.host()
        if symbol is None:
            return codegen.build(case.spec, case.template, case.schedule, where, registry)
        source = case.template.render(case.spec, case.schedule, where, registry)
        variant = Variant(case.template, case.schedule, source)
        whole = Range(None, source.name, symbol, case.schedule)
        return codegen.assemble(case.spec, (variant,), (whole,), where, registry)

    return build


@pytest.fixture(scope="session")
def build(build_case: Callable[..., Kernel], registry: Registry) -> Callable[..., Kernel]:
    """The generic kernel for a format's name, a dtype, epilogue steps and rounding of x."""
    template, host = GenericLinear(), Target.host()

    def build(name: str, dtype: torch.dtype, *epilogue: str, activations: str = "float") -> Kernel:
        spec = KernelSpec(registry.format(name), dtype, epilogue, activations)
        return build_case(KernelCase(template, template.schedules(spec, host)[0], spec))

    return build


@pytest.fixture(scope="session")
def pack_spec() -> Callable[..., Packed]:
    """A random weight `[n, k]` in a spec's format."""

    def pack(spec: KernelSpec, n: int, k: int) -> Packed:
        weight = sparse_weight(spec.format.structure, n, k, spec.dtype)
        try:
            return spec.format.pack(weight)
        except Reject:
            return spec.format.pack(torch.zeros_like(weight))

    return pack


@pytest.fixture(scope="session")
def pack(pack_spec: Callable[..., Packed]) -> Callable[..., Packed]:
    """A random weight `[n, k]` in a kernel's format."""
    return lambda kernel, n, k: pack_spec(kernel.spec, n, k)


@pytest.fixture(scope="session")
def check_linear() -> Callable[..., None]:
    """Hold a kernel against float64: its error is at most twice that of eager torch."""

    def check(kernel: Kernel, packed: Packed, lead: tuple[int, ...], with_bias: bool) -> None:
        layout = kernel.prepack(packed)
        header, n = layout[: ops.HEADER_BYTES], packed.shape[0]

        def run(x: Tensor, bias: Tensor | None, operands: tuple[Tensor, ...]) -> Tensor:
            return ops.linear(x, header, bias, operands, n, kernel.key)

        check_law(kernel.spec, packed, lead, with_bias, run)

    return check
