"""Gradients of the ops, and how `linear` decides; on the CPU, where the interpreter runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from libraries import Turned
from linear_law import sparse_weight
from triton_cases import H100, build, template_of

import sparsecompile as sc
from sparsecompile.codegen.triton.kernel import TritonKernel, find_kernel, remember_kernel
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.ops import load_ops, run_linear, run_unpack
from sparsecompile.kernels.kernel import Range


@pytest.fixture(scope="module", autouse=True)
def _unpack_on_the_cpu() -> Iterator[None]:
    load_ops()
    library = torch.library.Library("sparsecompile", "FRAGMENT")

    def unpack(weight, like, n, k, kernel, first=0):  # type: ignore[no-untyped-def]
        return run_unpack(find_kernel(kernel), weight, like, n, k, first, {})

    library.impl("unpack", unpack, "CPU")
    yield
    library._destroy()


@pytest.fixture(autouse=True)
def _not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is traced here, and torch 2.11 wraps only what Triton compiles."""
    monkeypatch.setattr(torch.library, "wrap_triton", lambda function: function)


def spec_of(name: str, *epilogue: str) -> sc.KernelSpec:
    return sc.KernelSpec(sc.default_registry().format(name), torch.float32, epilogue)


@pytest.mark.parametrize("name", ["n_m[2:4]", "block[16x16]/int8", "csr"])
def test_gradients_reach_x_and_the_bias(name: str) -> None:
    kernel = build(spec_of(name))
    packed = kernel.spec.format.pack(
        sparse_weight(kernel.spec.format.structure, 20, 70, torch.float32)
    )
    x, bias = torch.randn(2, 3, 70, requires_grad=True), torch.randn(20, requires_grad=True)
    layout = kernel.prepack(packed)
    op = torch.ops.sparsecompile.triton_linear
    y = op(x, layout, bias, None, None, None, None, None, 20, kernel.key)
    want = torch.nn.functional.linear(x, packed.unpack(), bias)
    torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, bias), grad)
    theirs = torch.autograd.grad(want, (x, bias), grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_go_through_libraries_too() -> None:
    spec, extern = spec_of("n_m[2:4]"), Turned()
    kernel = TritonCodegen().build(
        spec, extern, extern.search(spec, H100)[1], H100, sc.default_registry()
    )
    packed = spec.format.pack(sparse_weight(spec.format.structure, 20, 70, torch.float32))
    layout = extern.finish(kernel.prepack(packed), packed.shape, packed.dtype)
    x, bias = torch.randn(2, 3, 70, requires_grad=True), torch.randn(20, requires_grad=True)
    op = torch.ops.sparsecompile.triton_linear
    y = op(x, layout, bias, None, None, None, None, None, 20, kernel.key)
    want = torch.nn.functional.linear(x, packed.unpack(), bias)
    torch.testing.assert_close(y, want)
    grad = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, bias), grad)
    torch.testing.assert_close(ours, torch.autograd.grad(want, (x, bias), grad))


def test_dense_rows_run_the_dense_linear() -> None:
    spec = spec_of("n_m[2:4]", "relu", "mul")
    kernel, template = build(spec), template_of(spec)
    assert template is not None
    schedule = template.schedules(spec, H100)[0]
    codegen, registry = TritonCodegen(), sc.default_registry()
    variant = codegen.variant(spec, template, schedule, H100, registry)
    name = variant.source_name
    ranges = (Range(2, name, "few", schedule), Range(None, name, "many", schedule, dense=True))
    kernel = codegen.assemble(spec, (variant,), ranges, H100, registry)
    packed = spec.format.pack(sparse_weight(spec.format.structure, 24, 70, torch.float32))
    layout, other = kernel.prepack(packed), torch.randn(24, 70)
    bias, parts = torch.randn(24), (other[:10], other[10:])
    for m, weight in ((2, packed.unpack()), (3, other)):
        x, operand = torch.randn(m, 70), torch.randn(m, 24)
        given = (x, layout, bias, (operand, None), parts, 24)
        y = run_linear(kernel, *given, lambda f: f, {})
        want = torch.nn.functional.linear(x, weight, bias).relu() * operand
        torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-4)
    # Where the dense weight is not at hand after all, the function of that range stands in.
    x, operand = torch.randn(3, 70), torch.randn(3, 24)
    y = run_linear(kernel, x, layout, bias, (operand, None), (), 24, lambda f: f, {})
    want = torch.nn.functional.linear(x, packed.unpack(), bias).relu() * operand
    torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-4)


def test_kernels_are_found_by_their_key() -> None:
    kernel: TritonKernel = build(spec_of("csr"))
    assert remember_kernel(build(spec_of("csr"))) is kernel
    with pytest.raises(sc.SparseCompileError, match="there is no Triton kernel 7 in this process"):
        find_kernel(7)
