"""Weights, kernels and the error bound for tests of code generation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kernel_cases import KernelCase
from torch import Tensor
from torch.nn import functional as F

from sparsecompile import ops
from sparsecompile.activations import ACTIVATIONS
from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.variant import Variant
from sparsecompile.epilogue import apply_epilogue
from sparsecompile.errors import Reject
from sparsecompile.packed import Packed, Structure
from sparsecompile.registry import Registry, default_registry
from sparsecompile.spec import KernelSpec, Target
from sparsecompile.template import Kernel, Range


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of all tests that only want a kernel; `$SPARSECOMPILE_CACHE_DIR` if it is set."""
    with pytest.MonkeyPatch.context() as patch:
        if "SPARSECOMPILE_CACHE_DIR" not in os.environ:
            folder = tmp_path_factory.mktemp("sparsecompile", numbered=True)
            folder.chmod(0o700)
            patch.setenv("SPARSECOMPILE_CACHE_DIR", str(folder))
        yield Path(os.environ["SPARSECOMPILE_CACHE_DIR"])


@pytest.fixture(scope="session")
def registry() -> Registry:
    return default_registry()


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
        return codegen.assemble(case.spec, (variant,), (whole,), where)

    return build


@pytest.fixture(scope="session")
def build(build_case: Callable[..., Kernel], registry: Registry) -> Callable[..., Kernel]:
    """The generic kernel for a format's name, a dtype, epilogue steps and rounding of x."""
    template, host = GenericLinear(), Target.host()

    def build(name: str, dtype: torch.dtype, *epilogue: str, activations: str = "float") -> Kernel:
        spec = KernelSpec(registry.format(name), dtype, epilogue, activations)
        return build_case(KernelCase(template, template.schedules(spec, host)[0], spec))

    return build


def sparse_weight(structure: Structure, n: int, k: int, dtype: torch.dtype) -> Tensor:
    """A random weight that has the structure, with areas of zeros, in some rows larger ones."""
    weight = torch.randn(n, k).to(dtype)
    for sparsity in (None, 0.6):
        try:
            weight = weight * structure.prune(weight, sparsity)
        except ValueError:
            continue
        break
    weight[16:32, 40:] = 0
    weight[48:64] = 0
    return weight


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

    def check(
        kernel: Kernel,
        packed: Packed,
        lead: tuple[int, ...],
        with_bias: bool,
    ) -> None:
        (n, k), dtype = packed.shape, packed.dtype
        x = torch.randn(*lead, k).to(dtype)
        bias = torch.randn(n).to(dtype) if with_bias else None
        steps = kernel.spec.epilogue
        operands = tuple(torch.randn(*lead, n).to(dtype) for _ in range(kernel.spec.operands))
        weight, layout = packed.unpack(), kernel.prepack(packed)
        # What is stored and what x is rounded to are exact in float32, in torch's dtype rounded.
        stored, round_x = packed.unpack(torch.float32), ACTIVATIONS[kernel.spec.activations]
        header = layout[: ops.HEADER_BYTES]
        ours = ops.linear(x, header, bias, operands, n, kernel.key)
        assert ours.dtype == dtype
        assert ours.shape == (*lead, n)
        eager = apply_epilogue(F.linear(round_x(x), weight, bias), steps, operands)
        wide = [t.double() for t in operands]
        wide_x, wide_bias = round_x(x.float()).double(), None if bias is None else bias.double()
        product = F.linear(wide_x, stored.double(), wide_bias)
        exact = apply_epilogue(product, steps, wide)
        # One rounding of a float32 sum, seen through the epilogue.
        size = float(product.abs().max()) if product.numel() else 0.0
        eps = torch.finfo(torch.float32).eps * (1 + size)
        for operand in wide:
            eps *= 1 + (float(operand.abs().max()) if operand.numel() else 0.0)
        # So far off is the exact result once it is rounded: where there are few terms, eager torch
        # may be closer by chance.
        largest = float(exact.abs().max()) if exact.numel() else 0.0
        rounding = torch.finfo(dtype).eps / 2 * largest
        ours_off, eager_off = _error(ours, exact), max(_error(eager, exact), rounding)
        assert ours_off <= 2 * eager_off + eps

    return check


def _error(result: Tensor, exact: Tensor) -> float:
    difference = (result.double() - exact).abs()
    return float(difference.max()) if difference.numel() else 0.0
