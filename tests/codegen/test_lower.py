"""Choosing and building a kernel for a spec."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sparsecompile.codegen.cpp.generic import GenericLinear
from sparsecompile.codegen.cpp.lower import CppCodegen
from sparsecompile.codegen.dense import DenseLinear
from sparsecompile.errors import Reject
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Kernel, Lowering
from sparsecompile.kernels.problem import DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import ISA_LEVELS, Target
from sparsecompile.registry import Registry


def lower(codegen: CppCodegen, spec: KernelSpec, registry: Registry) -> Lowering:
    """What becomes of a weight `[32, 64]` full of zeros, unmeasured."""
    problem = Problem(spec, (32, 64), (1,), False, DenseUse.ANYWHERE, "off", 0.0)
    weight = torch.zeros(32, 64, dtype=spec.dtype)
    found = codegen.lower(
        {problem: lambda: Contents(spec.format.pack(weight))}, Target.host(), registry
    )
    return found[problem]


def test_a_kernel_is_built_once(shared_cache: Path, registry: Registry) -> None:
    spec = KernelSpec(registry.format("n_m[2:4]"), torch.float32)
    codegen = CppCodegen()
    with ThreadPoolExecutor(4) as pool:
        chosen = list(pool.map(lambda _: lower(codegen, spec, registry), range(8)))
    (kernel,) = {lowering.kernel for lowering in chosen}
    assert isinstance(kernel, Kernel)
    assert 0 < kernel.key < 2**63
    assert {lowering.reason for lowering in chosen} == {"not measured (tune is off)"}
    again = lower(CppCodegen(), spec, registry).kernel
    assert again is not None
    assert again.key == kernel.key


def test_a_dense_weight_stays_with_torch(registry: Registry) -> None:
    spec = KernelSpec(registry.format("dense"), torch.float32)
    first = CppCodegen().candidates(spec, Target.host(), registry)[0]
    assert isinstance(first, DenseLinear)


def test_a_full_search_begins_with_the_default(registry: Registry) -> None:
    template = GenericLinear()
    for isa in ISA_LEVELS:
        target = Target("cpu", "x86_64", isa)
        spec = KernelSpec(registry.format("bitmap"), torch.float32)
        found = template.search(spec, target)
        assert found[0] == template.schedules(spec, target)[0]
        assert len(set(found)) == len(found) == 7
        assert {s["batch_lanes"] * s["batch_columns"] for s in found} == {4096, 8192, 16384}


def test_what_is_searched(registry: Registry) -> None:
    spec = KernelSpec(registry.format("dense/int8"), torch.float32)
    codegen, target = CppCodegen(), Target.host()
    defaults = codegen.variants(spec, target, registry)
    searched = codegen.searched(spec, target, registry)
    assert set(defaults) <= set(searched)
    generic = [variant for variant in searched if variant.template.name == "generic"]
    assert {variant.layout for variant in generic} == {"generic"}
    assert len({variant.source.name for variant in generic}) == len(generic) == 7


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
        CppCodegen().candidates(spec, Target.host(), registry)
    with pytest.raises(Reject, match="nothing registered"):
        CppCodegen().candidates(spec, Target.host(), Registry())


def test_sources_digest_is_stable() -> None:
    assert CppCodegen().sources_digest() == CppCodegen().sources_digest()
    assert len(CppCodegen().sources_digest()) == 20
