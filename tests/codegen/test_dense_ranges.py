"""Rows that a kernel leaves to torch's dense linear, and the epilogue that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from kernel_cases import EPILOGUES, TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.cpp.onednn import onednn_for
from sparsecompile.codegen.tuning.variant import Variant
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels import ops
from sparsecompile.kernels.epilogue import apply_epilogue
from sparsecompile.kernels.kernel import Kernel, Range
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.kernels.template import Template
from sparsecompile.registry import Registry, default_registry

N, K = 48, 40
LAST_PACKED = 4


@dataclass(frozen=True)
class Mixed:
    """A kernel that serves up to LAST_PACKED rows; a weight, and another one instead of it."""

    kernel: Kernel
    header: Tensor
    weight: Tensor
    other: Tensor

    def __call__(
        self, x: Tensor, bias: Tensor | None, operands: tuple[Tensor, ...], *parts: Tensor
    ) -> Tensor:
        return ops.linear(x, self.header, bias, operands, N, self.kernel.key, parts)


def dense_above(
    template: Template, spec: KernelSpec, registry: Registry, pack: Callable[..., Packed]
) -> Mixed:
    host = Target.host()
    schedule = template.schedules(spec, host)[0]
    source = template.render(spec, schedule, host, registry)
    symbol, _ = source.kernels[-1]
    packed = Range(LAST_PACKED, source.name, symbol, schedule)
    ranges = (packed, replace(packed, largest_m=None, dense=True))
    variant = Variant(template, schedule, source)
    kernel = CppCodegen().assemble(spec, (variant,), ranges, host, registry)
    assert kernel.wants_dense
    weight = pack(kernel, N, K)
    header = kernel.prepack(weight)[: ops.HEADER_BYTES]
    return Mixed(kernel, header, weight.unpack(), torch.randn(N, K).to(spec.dtype))


def spec_of(dtype: torch.dtype, *epilogue: str) -> KernelSpec:
    return KernelSpec(default_registry().format("n_m[2:4]"), dtype, epilogue)


@pytest.fixture(scope="module", params=TEMPLATES, ids=lambda template: template.name)
def mixed(
    request: pytest.FixtureRequest,
    shared_cache: object,
    registry: Registry,
    pack: Callable[..., Packed],
) -> Mixed:
    template: Template = request.param
    return dense_above(template, spec_of(torch.float32), registry, pack)


@pytest.mark.parametrize("rows", [(N,), (16, 32), (1, 40, 7)])
def test_more_rows_run_on_the_dense_parts(mixed: Mixed, rows: tuple[int, ...]) -> None:
    parts = mixed.other.split(rows)
    bias = torch.randn(N)
    for lead in ((LAST_PACKED + 1,), (3, 7)):
        x = torch.randn(*lead, K)
        for given in (bias, None):
            y = mixed(x, given, (), *parts)
            # The other weight tells which one was multiplied with.
            torch.testing.assert_close(y, F.linear(x, mixed.other, given))
            torch.testing.assert_close(mixed(x, given, ()), F.linear(x, mixed.weight, given))


def test_gradients_go_through_the_dense_parts(mixed: Mixed) -> None:
    """They are written with `out=`, which takes no part in autograd."""
    parts, bias = mixed.weight.split((1, 40, 7)), torch.randn(N, requires_grad=True)
    x = torch.randn(9, K, requires_grad=True)
    got = torch.autograd.grad(mixed(x, bias, (), *parts).square().sum(), (x, bias))
    want = torch.autograd.grad(F.linear(x, mixed.weight, bias).square().sum(), (x, bias))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_more_rows_run_on_a_copy_in_onednns_order(mixed: Mixed) -> None:
    order = onednn_for(torch.float32)
    if order is None:
        pytest.skip("torch was built without oneDNN")
    copy, bias = order.make(mixed.other), torch.randn(N)
    for lead in ((LAST_PACKED + 1,), (3, 7)):
        x = torch.randn(*lead, K)
        for given in (bias, None):
            y = mixed(x, given, (), copy)
            torch.testing.assert_close(y, F.linear(x, mixed.other, given))
    with pytest.raises(RuntimeError, match="dense weight has 47 rows, the packed one 48"):
        mixed(torch.randn(9, K), None, (), order.make(mixed.other[1:]))


def test_few_rows_stay_with_the_kernel(mixed: Mixed) -> None:
    for m in (1, LAST_PACKED):
        x = torch.randn(m, K)
        torch.testing.assert_close(mixed(x, None, (), mixed.other), F.linear(x, mixed.weight))


def test_nothing_to_compute(mixed: Mixed) -> None:
    assert mixed(torch.randn(0, K), None, (), mixed.other).shape == (0, N)


@pytest.mark.parametrize("rows", [(16, 31), (16, 33), (48, 1)])
def test_parts_of_another_weight_are_refused(mixed: Mixed, rows: tuple[int, ...]) -> None:
    parts = [torch.randn(n, K) for n in rows]
    for bias in (torch.randn(N), None):
        with pytest.raises(RuntimeError, match=r"dense weight has \d+ rows, the packed one 48"):
            mixed(torch.randn(9, K), bias, (), *parts)


def test_one_part_of_another_weight_is_refused(mixed: Mixed) -> None:
    for n in (N - 1, N + 1):
        with pytest.raises(RuntimeError, match=r"dense weight has \d+ rows, the packed one 48"):
            mixed(torch.randn(9, K), None, (), torch.randn(n, K))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize(
    ("dtype", "epilogue"),
    [(torch.bfloat16, ("silu", "mul")), (torch.float32, ("sigmoid", "add", "mul"))],
)
def test_the_epilogue_follows_the_dense_linear(
    template: Template,
    dtype: torch.dtype,
    epilogue: tuple[str, ...],
    shared_cache: object,
    registry: Registry,
    pack: Callable[..., Packed],
) -> None:
    """`sc_finish`: bit for bit what float32 gives, rounded once."""
    assert epilogue in EPILOGUES
    mixed = dense_above(template, spec_of(dtype, *epilogue), registry, pack)
    for m in (5, 17, 600):
        x, bias = torch.randn(m, K).to(dtype), torch.randn(N).to(dtype)
        operands = tuple(torch.randn(m, N).to(dtype) for _ in range(mixed.kernel.spec.operands))
        y = mixed(x, bias, operands, mixed.other)
        product = F.linear(x, mixed.other, bias)
        want = apply_epilogue(product.float(), epilogue, [t.float() for t in operands])
        torch.testing.assert_close(y, want.to(dtype))
        packed = mixed(x, bias, operands)
        unlike = apply_epilogue(F.linear(x, mixed.weight, bias), epilogue, operands)
        torch.testing.assert_close(packed, unlike, rtol=0.05, atol=0.05)
