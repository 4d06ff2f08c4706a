"""What `bench gpu` checks on a GPU, here in the interpreter."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecompile.bench.gpu.correctness import check_correctness
from sparsecompile.codegen.triton.aot.cases import registry_cases
from sparsecompile.codegen.triton.kernel import TritonKernel
from sparsecompile.codegen.triton.start import start_linear
from sparsecompile.registry import default_registry
from sparsecompile.spec import Target

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
