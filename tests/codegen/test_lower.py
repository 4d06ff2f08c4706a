"""Choosing and building a kernel for a spec."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.dense import DenseLinear
from sparsecompile.errors import Reject
from sparsecompile.problem import Problem
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Target
from sparsecompile.template import Kernel


def problem(spec: KernelSpec, n: int = 48, k: int = 64) -> Problem:
    return Problem(spec, (n, k), (1,), is_dynamic=False, dense=False, tune="off", density=0.5)


def lower(codegen: CppCodegen, registry: Registry, spec: KernelSpec) -> Kernel | None:
    """The kernel of a spec for a random weight, unmeasured."""
    asked = problem(spec)
    weight = torch.randn(asked.shape).to(spec.dtype)
    weight *= spec.format.structure.prune(weight)
    samples = {asked: lambda: spec.format.pack(weight)}
    return codegen.lower(samples, Target.host(), registry)[asked].kernel


def test_a_kernel_is_built_once(shared_cache: Path, registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    codegen = CppCodegen()
    with ThreadPoolExecutor(4) as pool:
        chosen = set(pool.map(lambda _: lower(codegen, registry, spec), range(8)))
    (kernel,) = chosen
    assert isinstance(kernel, Kernel)
    assert 0 < kernel.key < 2**63
    again = lower(CppCodegen(), registry, spec)
    assert again is not None
    assert again.key == kernel.key


def test_candidates_of_a_dense_weight_begin_with_torch(registry: Registry) -> None:
    spec = KernelSpec(registry.format("dense"), torch.float32)
    assert isinstance(CppCodegen().candidates(spec, Target.host(), registry)[0], DenseLinear)


def test_a_quantized_dense_weight_gets_a_template(registry: Registry) -> None:
    spec = KernelSpec(registry.format("dense/int8"), torch.float32)
    candidates = CppCodegen().candidates(spec, Target.host(), registry)
    assert "generic" in [template.name for template, _ in candidates]
    rounded = KernelSpec(registry.format("n_m[2:4]"), torch.float32, activations="int8")
    assert str(rounded) == "linear n_m[2:4]/float float32 activations=int8"
    with pytest.raises(Reject, match="dense/int8 is lossy"):
        DenseLinear().supports(spec, Target.host())
    with pytest.raises(Reject, match="the dense linear does not round activations to int8"):
        DenseLinear().supports(rounded, Target.host())


def test_refuses_with_every_reason(registry: Registry) -> None:
    spec = KernelSpec(registry.format("csr"), torch.float64)
    with pytest.raises(
        Reject, match=r"no kernel for linear csr/float float64: .*generic: torch.float64"
    ):
        CppCodegen().variants(spec, Target.host(), registry)
    with pytest.raises(Reject, match="nothing registered"):
        CppCodegen().variants(spec, Target.host(), Registry())


def test_sources_digest_is_stable() -> None:
    assert CppCodegen().sources_digest() == CppCodegen().sources_digest()
    assert len(CppCodegen().sources_digest()) == 20
