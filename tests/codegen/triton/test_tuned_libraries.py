"""Libraries take part in the tuner's contests on GPUs."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import H100, SPEC, Gpu, explain
from torch import nn
from tuned import Tuned

import sparsecompile as sc
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.workbench import TritonWorkbench
from sparsecompile.kernels.kernel import Kernel


def test_a_library_wins_and_serves_every_m(
    model: nn.Module, tuned: Tuned, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TritonWorkbench, "faults", lambda *_: {})
    tuned.seconds = lambda name, rows: {"cusparselt": 1.0, "tiles": 2.0}.get(name.split()[0], 3.0)
    node = explain(model, "fast")
    assert node.kernel is not None
    assert node.kernel.ranges == ("any m: cusparselt alg_id=0",)
    assert (node.kernel.template, node.kernel.source) == ("cusparselt", "")
    # Padded to multiples of 16; 9/16 of it.
    assert node.packed_bytes == 32 * 64 * 2 * 9 // 16
    # Every algorithm reads the one layout: each m takes the one that is fastest there.
    tuned.seconds = lambda name, rows: {
        "cusparselt alg_id=3": 0.5 if rows < 8 else 0.9,
        "cusparselt alg_id=2": 0.6,
    }.get(name, 2.0)
    tuned.record().clear()
    x = torch.randn(4, 64).half()
    torch._dynamo.mark_dynamic(x, 0)
    (node,) = sc.explain(model, x, tune="full", target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.ranges == ("m <= 7: cusparselt alg_id=3", "any m: cusparselt alg_id=2")
    assert {t.label for t in node.trials if t.chosen} == {"cusparselt"}


def test_dense_serves_the_rows_at_which_a_library_is_slower(
    model: nn.Module, tuned: Tuned, gpu: Gpu
) -> None:
    tuned.seconds = lambda name, rows: {
        "cusparselt": 0.5 if rows > 64 else 4.0,
        "tiles": 1.9,
    }.get(name.split()[0], 2.0)
    x = torch.randn(4, 64).half()
    torch._dynamo.mark_dynamic(x, 0)
    (node,) = sc.explain(model, x, tune="fast", target="sm_90").nodes
    assert node.kernel is not None
    assert node.kernel.ranges == ("m <= 64: dense", "any m: cusparselt alg_id=0")


def test_kernels_for_any_gpu_can_be_built_from_libraries(gpu: Gpu) -> None:
    registry = sc.default_registry()
    kernels: list[Kernel] = []
    for extern in registry.all(sc.PackedExtern):
        schedule = extern.schedules(SPEC, H100)[0]
        kernels.append(TritonCodegen().build(SPEC, extern, schedule, H100, registry))
    assert {k.layout for k in kernels} == {"cutlass", "cusparselt"}
    assert len({k.key for k in kernels}) == 2
    assert all(k.sources == () for k in kernels)
