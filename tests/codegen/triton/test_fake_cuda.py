"""Models on CUDA, as far as one comes without a driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from fake_cuda import on_fake_cuda, stub_driver
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.codegen.triton import ops
from sparsecompile.structures.n_m import NM


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(256, 512), nn.Linear(512, 256)
        for layer in (self.up, self.down):
            layer.weight.data.mul_(NM(2, 4).prune(layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x))) + x


@pytest.fixture
def mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture
def model() -> nn.Module:
    return MLP().half().eval().requires_grad_(False)


def fake_x(rows: int) -> Tensor:
    return torch.empty(rows, 256, dtype=torch.float16, device="cuda")


def test_a_model_on_cuda_is_explained(model: nn.Module, mode: FakeTensorMode) -> None:
    fake = on_fake_cuda(model, mode)
    with mode:
        report = sc.explain(fake, fake_x(4), target="sm_80")
    assert report.target == "cuda sm_80"
    assert [(n.format, n.epilogue) for n in report.nodes] == [
        ("n_m[2:4]/float", ("gelu",)),
        ("n_m[2:4]/float", ("add",)),
    ]
    assert report.after.count("sparsecompile.triton_linear") == 2
    for node in report.nodes:
        assert node.kernel is not None
        assert node.kernel.template == "tiles"
        assert node.packed_bytes < 0.6 * node.dense_bytes
        assert "not measured; rooflines of A100" in node.chosen_by
        assert "tl.join" in report.sources[node.kernel.source]


def test_the_same_is_said_of_a_model_on_the_cpu(model: nn.Module, mode: FakeTensorMode) -> None:
    x = torch.randn(4, 256).half()
    there = sc.explain(model, x, target="sm_80")
    fake = on_fake_cuda(model, mode)
    with mode:
        here = sc.explain(fake, fake_x(4), target="sm_80")
    facts = [(n.format, n.packed_bytes, n.chosen_by, n.kernel) for n in there.nodes]
    assert facts == [(n.format, n.packed_bytes, n.chosen_by, n.kernel) for n in here.nodes]
    # The model itself stays where it is, and as it is.
    torch.testing.assert_close(model(x), model(x))
    assert [n.packed for n in sc.explain(model, x).nodes] == [True, True]


def test_many_rows_run_dense_and_say_why(model: nn.Module) -> None:
    report = sc.explain(model, torch.randn(4096, 256).half(), target="sm_80", strict=False)
    wide = sc.explain(nn_linear(4096), torch.zeros(8192, 4096).half(), target="sm_80")
    assert [node.packed for node in wide.nodes] == [False]
    assert "dense is no slower" in wide.nodes[0].reason
    assert "rooflines of A100" in wide.nodes[0].reason
    assert len(report.nodes) == 2


def nn_linear(width: int) -> nn.Module:
    layer = nn.Linear(width, width, bias=False, dtype=torch.float16).requires_grad_(False)
    layer.weight[:, 1::2] = 0
    return layer.eval()


def test_any_number_of_rows_is_one_op_that_decides_when_it_is_called(mode: FakeTensorMode) -> None:
    layer = nn_linear(2048)
    x = torch.zeros(5, 2048).half()
    torch._dynamo.mark_dynamic(x, 0)
    (node,) = sc.explain(layer, x, target="sm_80").nodes
    assert node.kernel is not None
    assert node.kernel.ranges[0].startswith("m <= 1: row of tiles")
    assert node.kernel.ranges[-1] == "any m: dense"
    report = sc.explain(layer, x, target="sm_80")
    assert "sparsecompile.linear.default" in report.after


def test_weights_elsewhere_stay_dense_and_say_why(model: nn.Module, mode: FakeTensorMode) -> None:
    fake, on_cpu = on_fake_cuda(model, mode), sc.Compiler(target="cpu")
    with mode, torch.no_grad():
        torch.compile(fake, backend=_eager(on_cpu))(fake_x(4))
    assert {n.reason for n in on_cpu.report.nodes} == {
        "up.weight is on cuda:0; there are kernels for cpu",
        "down.weight is on cuda:0; there are kernels for cpu",
    }
    for_gpu = sc.Compiler(target="sm_90")
    with torch.no_grad():
        torch.compile(model, backend=_eager(for_gpu))(torch.randn(4, 256).half())
    assert {n.reason for n in for_gpu.report.nodes} == {
        "up.weight is on cpu; there are kernels for cuda",
        "down.weight is on cpu; there are kernels for cuda",
    }


def test_a_model_on_two_devices(model: nn.Module, mode: FakeTensorMode) -> None:
    fake = on_fake_cuda(model, mode)
    compiler = sc.Compiler(target="sm_90")
    both = nn.ModuleList((fake, model))

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return both[0](x), both[1](y)

    with mode, torch.no_grad():
        torch.compile(run, backend=_eager(compiler))(fake_x(4), torch.randn(4, 256).half())
    packed = {n.weight: n.packed for n in compiler.report.nodes}
    assert sorted(packed.values()) == [False, False, True, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_target_has_to_be_named(model: nn.Module, mode: FakeTensorMode) -> None:
    compiler = sc.Compiler()
    with mode, torch.no_grad():
        torch.compile(on_fake_cuda(model, mode), backend=_eager(compiler))(fake_x(4))
    reasons = {r.reason for g in compiler.report.graph_reports for r in g.rewrites}
    assert any("there is no GPU for cuda:0 on this machine; name" in r for r in reasons)
    assert not any(node.packed for node in compiler.report.nodes)


def test_fake_weights_without_values_stay_dense(model: nn.Module, mode: FakeTensorMode) -> None:
    fake = on_fake_cuda(model, mode)
    for parameter in fake.parameters():
        parameter.real_tensor = None  # type: ignore[attr-defined]
    with mode:
        report = sc.explain(fake, fake_x(4), target="sm_90")
    assert {n.reason for n in report.nodes} == {
        "up.weight is a fake tensor without values",
        "down.weight is a fake tensor without values",
    }


def test_quantized_weights_are_multiplied_as_integers(model: nn.Module) -> None:
    x = torch.randn(4, 256).half()
    report = sc.explain(model, x, target="sm_90", quantize="int8", formats=[])
    assert [n.format for n in report.nodes] == ["dense/int8"] * 2
    text = report.sources[report.nodes[0].kernel.source]  # type: ignore[union-attr]
    assert "round_activations" in text
    assert "tl.zeros((BLOCK_N, BLOCK_M), tl.int32)" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_first_thing_that_is_missing_is_the_driver(
    model: nn.Module, mode: FakeTensorMode
) -> None:
    fake = torch.compile(on_fake_cuda(model, mode), backend=sc.Compiler(target="sm_90"))
    with mode, torch.no_grad(), stub_driver(90), pytest.raises(Exception, match="NVIDIA driver"):
        fake(fake_x(4))


def test_inductor_sees_the_kernels(model: nn.Module, mode: FakeTensorMode) -> None:
    (node, *_), graphs = _traced(model, mode, [4])
    assert node.packed
    started = [n for n in graphs[0].graph.nodes if "triton_kernel_wrapper" in str(n.target)]
    # Two linears, of which k is split, and what adds the parts.
    assert [set(n.kwargs["tensors_to_clone"]) for n in started] == [{"y"}] * len(started)
    assert len(started) in (2, 3, 4)
    # As where Inductor does not look into the op: what is multiplied and added is rounded once.
    assert all(call.kwargs["kwargs"]["enable_fp_fusion"] is True for call in started)


def test_a_new_number_of_rows_compiles_nothing_anew(model: nn.Module, mode: FakeTensorMode) -> None:
    nodes, graphs = _traced(model, mode, [5, 9, 33, 700], dynamic=True)
    assert all(node.packed for node in nodes)
    assert len(graphs) == 1
    assert "torch.ops.sparsecompile.linear.default" in graphs[0].code


def test_gradients_through_an_epilogue_are_refused(mode: FakeTensorMode) -> None:
    from triton_cases import build

    from sparsecompile.codegen.triton.ops import load_ops

    load_ops()
    registry = sc.default_registry()
    kernel = build(sc.KernelSpec(registry.format("n_m[2:4]"), torch.float16, ("relu",)))
    with mode:
        x = fake_x(4).requires_grad_(True)
        weight = torch.empty(1024, dtype=torch.uint8, device="cuda")
        args = (x, weight, *[None] * 6, 512, kernel.key)
        with pytest.raises(sc.SparseCompileError, match="gradients through a fused epilogue"):
            torch.ops.sparsecompile.linear(*args)
        with stub_driver(90), pytest.raises(sc.SparseCompileError, match="fused epilogue"):
            torch.ops.sparsecompile.triton_linear(*args)


def test_ops_are_loaded_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[None] = []

    def load() -> bool:
        inside.append(None)
        time.sleep(0.01)
        inside.pop()
        return not inside

    monkeypatch.setattr(ops, "_load", load)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: ops.load_ops(), range(4)))


def _eager(compiler: sc.Compiler) -> Callable[..., Any]:
    """A backend that packs and leaves the rest as it is."""

    def finish(module: Any, inputs: Sequence[Any], layouts: Sequence[Tensor]) -> Any:
        return module.forward

    return lambda gm, inputs: compiler.compile(gm, inputs, finish)


def _aot(compiler: sc.Compiler, codes: list[Any], *, keep_graphs: bool = False) -> Any:
    """A backend that packs and lets AOTAutograd look at the rest."""
    from torch._dynamo.backends.common import aot_autograd

    def look(gm: Any, inputs: Sequence[Any]) -> Any:
        codes.append(gm if keep_graphs else gm.code)
        return gm.forward

    def finish(module: Any, inputs: Sequence[Any], layouts: Sequence[Tensor]) -> Any:
        return aot_autograd(fw_compiler=look, bw_compiler=look)(module, [*inputs, *layouts])

    return lambda gm, inputs: compiler.compile(gm, inputs, finish)


def _traced(
    model: nn.Module, mode: FakeTensorMode, rows: Sequence[int], dynamic: bool = False
) -> tuple[Sequence[Any], list[Any]]:
    """The report's nodes and AOTAutograd's graphs of calls with these rows."""
    compiler, graphs = sc.Compiler(target="sm_90"), []
    fake = on_fake_cuda(model, mode)
    run = torch.compile(fake, backend=_aot(compiler, graphs, keep_graphs=True), dynamic=dynamic)
    with mode, torch.no_grad(), stub_driver(90):
        for m in rows:
            assert run(fake_x(m)).shape == (m, 256)
    return compiler.report.nodes, graphs
