"""What `bench gpu` checks on a GPU, here in the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from linear_law import sparse_weight
from torch import Tensor
from triton_cases import template_of

from sparsecompile.bench.aot.cases import registry_cases
from sparsecompile.bench.gpu.correctness import check_correctness, check_operators
from sparsecompile.codegen.triton.attention.block_masks import scan_mask
from sparsecompile.codegen.triton.attention.start import start_attention
from sparsecompile.codegen.triton.kernel import TritonKernel, find_kernel
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.ops import load_ops
from sparsecompile.codegen.triton.start import start_linear
from sparsecompile.kernels.kernel import Range
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.target import Target
from sparsecompile.operators.operator import Operator
from sparsecompile.registry import default_registry

REGISTRY = default_registry()
CPU = torch.device("cpu")


def run(kernel: TritonKernel, x: Tensor, layout: Tensor, n: int) -> Tensor:
    launch = kernel.launch_of(kernel.range_at(x.shape[0]))
    return start_linear(kernel, launch, x, layout, None, (None, None), n, lambda f: f, {})


def check(call: object, rows: tuple[int, ...]) -> list[str]:
    formats = (REGISTRY.format("n_m[2:4]"),)
    cases = registry_cases(REGISTRY, Target.parse("sm_90"), (torch.float16,), formats)
    ((_, wrong),) = check_correctness(cases, REGISTRY, CPU, call, rows)
    return [str(each) for each in wrong]


def test_a_right_kernel() -> None:
    assert check(run, (7,)) == []


def test_a_wrong_kernel() -> None:
    (wrong,) = check(lambda kernel, x, *rest: run(kernel, x, *rest) + 1, (7,))
    assert wrong.startswith("linear n_m[2:4]/float float16 tiles ")
    assert "m=7: error 1" in wrong


def test_a_kernel_that_gives_nan() -> None:
    (wrong,) = check(lambda kernel, x, *rest: run(kernel, x, *rest) * float("nan"), (1,))
    assert "m=1: error nan" in wrong


def test_a_kernel_that_does_not_run() -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("out of\nresources")

    (wrong,) = check(fail, (1,))
    assert wrong.endswith("m=1: out of resources")


@pytest.fixture
def _attention_on_the_cpu() -> Iterator[None]:
    load_ops()
    library = torch.library.Library("sparsecompile", "FRAGMENT")

    def attention(q, k, v, mask, bias, scale, softcap, kernel, *scales):  # type: ignore[no-untyped-def]
        found = find_kernel(kernel)
        return start_attention(found, q, k, v, mask, bias, scale, softcap, {}, *scales)

    library.impl("attention", attention, "CPU")
    library.impl("scan_mask", partial(scan_mask, options={}), "CPU")
    yield
    library._destroy()


@pytest.mark.usefixtures("_attention_on_the_cpu")
@pytest.mark.filterwarnings("ignore:overflow encountered in multiply:RuntimeWarning")
def test_operators_that_read_no_weight() -> None:
    found = list(check_operators(REGISTRY, Target.parse("sm_90"), CPU))
    assert len(found) == len(REGISTRY.get(Operator, "attention").examples())
    for problem, why in found:
        # What GPUs do not read is said.
        is_read = problem.spec.kv_dtype is None or problem.spec.dtype != torch.float32
        assert not why if is_read else "keys and values in torch.int8 are not read" in why


def test_an_operator_without_a_kernel() -> None:
    (problem, why), *_ = check_operators(REGISTRY, Target.parse("sm_75"), CPU)
    assert why.startswith(f"no kernel for {problem.spec}: ")


def test_functions_of_several_modules() -> None:
    target, codegen = Target.parse("sm_90"), TritonCodegen()
    spec = KernelSpec(REGISTRY.format("n_m[2:4]"), torch.float16)
    template = template_of(spec)
    assert template is not None
    variants = tuple(
        codegen.variant(spec, template, schedule, target, REGISTRY)
        for schedule in template.search(spec, target)[:3]
    )
    few, many, row = (
        Range(last, v.source_name, symbol, v.schedule)
        for last, symbol, v in zip((4, None, 1), ("few", "many", "row"), variants, strict=True)
    )
    kernel = codegen.assemble(spec, variants, (row, few, many), target, REGISTRY)
    assert isinstance(kernel, TritonKernel)
    packed = spec.format.pack(sparse_weight(spec.format.structure, 20, 140, torch.float16))
    layout, weight = kernel.prepack(packed), packed.unpack()
    for m, variant, symbol in zip((1, 4, 9), (2, 0, 1), ("row", "few", "many"), strict=True):
        launch = kernel.launch_of(kernel.range_at(m))
        (want,) = (
            each
            for each in template.launches(spec, variants[variant].schedule)
            if each.symbol == symbol
        )
        assert launch == replace(want, source=variants[variant].source_name)
        assert kernel.modules[launch.source].__file__ == str(kernel.paths[launch.source])
        x = torch.randn(m, 140).half()
        with pytest.MonkeyPatch.context() as patch:
            for name, module in kernel.modules.items():
                if name != launch.source:
                    patch.delattr(module, launch.function)
            y = run(kernel, x, layout, 20)
        torch.testing.assert_close(y, torch.nn.functional.linear(x, weight), rtol=1e-2, atol=2e-2)
    assert len(set(kernel.paths.values())) == 3
