"""Library calls that serve ranges of m: chosen, called, unpacked, on CPUs and on fake GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_cuda import on_fake_cuda, stub_driver
from libraries import Turned
from linear_law import check_law, sparse_weight
from packing import sparse_
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.sparse._semi_structured_conversions import sparse_semi_structured_to_dense_cutlass

import sparsecompile as sc
from sparsecompile.bench.aot.cases import report_cases
from sparsecompile.codegen.libraries.cutlass import Cutlass
from sparsecompile.codegen.triton.library import LibraryKernel
from sparsecompile.codegen.triton.lower import TritonCodegen
from sparsecompile.codegen.triton.ops import run_linear, run_unpack
from sparsecompile.formats.packed import Packed
from sparsecompile.kernels.contents import Contents
from sparsecompile.kernels.kernel import Lowering, Range
from sparsecompile.kernels.problem import ROWS, DenseUse, Problem
from sparsecompile.kernels.spec import KernelSpec, Schedule
from sparsecompile.kernels.target import Target
from sparsecompile.registry import Registry

H100, A100 = Target.parse("sm_90"), Target.parse("sm_80")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def spec_of(dtype: torch.dtype = torch.float16, *epilogue: str) -> KernelSpec:
    return KernelSpec(sc.default_registry().format("n_m[2:4]"), dtype, epilogue)


def pack(spec: KernelSpec, n: int, k: int) -> Packed:
    return spec.format.pack(sparse_weight(spec.format.structure, n, k, spec.dtype))


def library(spec: KernelSpec, *ranges: tuple[int | None, int | None]) -> LibraryKernel:
    """Ranges are their last m, and which way; dense where that is None."""
    extern = Turned()
    schedules = extern.search(spec, H100)
    codegen, registry = TritonCodegen(), sc.default_registry()
    variants = tuple(codegen.variant(spec, extern, s, H100, registry) for s in schedules)
    parts = tuple(
        Range(last, "", extern.name, schedules[way or 0], dense=way is None) for last, way in ranges
    )
    kernel = codegen.assemble(spec, variants, parts, H100, registry)
    assert isinstance(kernel, LibraryKernel)
    return kernel


def finished(kernel: LibraryKernel, packed: Packed) -> Tensor:
    return kernel.template.finish(kernel.prepack(packed), packed.shape, packed.dtype)


def ways(kernel: LibraryKernel) -> list[int]:
    extern: Any = kernel.template
    found = [schedule["way"] for schedule in extern.called]
    extern.called.clear()
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epilogue", [(), ("relu",), ("silu", "mul"), ("sigmoid", "add", "mul")])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_library_is_held_to_the_law_of_all_kernels(
    dtype: torch.dtype, epilogue: tuple[str, ...], with_bias: bool
) -> None:
    spec = spec_of(dtype, *epilogue)
    packed, kernel = pack(spec, 20, 70), library(spec, (None, 0))
    layout = finished(kernel, packed)

    def run(x: Tensor, bias: Tensor | None, operands: tuple[Tensor, ...]) -> Tensor:
        first, second = (*operands, None, None)[:2]
        return run_linear(kernel, x, layout, bias, (first, second), (), 20, lambda f: f, {})

    for lead in ((3,), (1, 1), (2, 3), (0,)):
        check_law(spec, packed, lead, with_bias, run)


def test_each_range_is_called_its_own_way_and_dense_where_it_is_at_hand() -> None:
    spec = spec_of(torch.float32, "relu", "mul")
    kernel = library(spec, (2, 1), (4, None), (None, 2))
    packed, other, bias = pack(spec, 24, 70), torch.randn(24, 70), torch.randn(24)
    layout = finished(kernel, packed)
    for m, way in ((1, 1), (2, 1), (5, 2), (70, 2), (3, None)):
        x, operand = torch.randn(m, 70), torch.randn(m, 24)
        given = (kernel, x, layout, bias, (operand, None))
        y = run_linear(*given, (other[:10], other[10:]), 24, lambda f: f, {})
        weight = other if way is None else packed.unpack()
        torch.testing.assert_close(y, F.linear(x, weight, bias).relu() * operand)
        assert ways(kernel) == ([] if way is None else [way])
    # Where the dense weight is not at hand after all, the library stands in.
    y = run_linear(kernel, x, layout, bias, (operand, None), (), 24, lambda f: f, {})
    torch.testing.assert_close(y, F.linear(x, packed.unpack(), bias).relu() * operand)
    assert [str(part) for part in kernel.ranges] == [
        "m <= 2: turned way=1",
        "m <= 4: dense",
        "any m: turned way=2",
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 70), (1, 4), (0, 8)])
def test_a_library_unpacks_exactly(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    spec = spec_of(dtype)
    kernel = library(spec, (None, 0))
    packed = pack(spec, *shape) if shape[0] else spec.format.pack(torch.zeros(shape, dtype=dtype))
    layout = finished(kernel, packed)
    for wanted in (dtype, torch.float32):
        like = torch.empty(0, dtype=wanted)
        got = run_unpack(kernel, layout, like, *shape, 0, {})
        assert got.dtype == wanted
        assert torch.equal(got, packed.unpack(wanted))


def test_parts_of_a_layout_are_refused() -> None:
    kernel = library(spec_of(), (None, 0))
    layout = finished(kernel, pack(spec_of(), 8, 16))
    with pytest.raises(sc.SparseCompileError, match="rows from 4 on cannot be unpacked from a la"):
        run_unpack(kernel, layout, torch.empty(0), 4, 16, 4, {})


def test_what_cutlass_was_given_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(values: Tensor, positions: Tensor, other: Tensor) -> Tensor:
        return sparse_semi_structured_to_dense_cutlass(values, positions) @ other

    monkeypatch.setattr(torch, "_sparse_semi_structured_mm", decoded)
    spec, extern = spec_of(), Cutlass()
    packed = pack(spec, 20, 36)
    layout = extern.prepack(packed, Schedule(), sc.default_registry())
    assert torch.equal(extern.unpack(layout, (20, 36), spec.dtype, Schedule()), packed.unpack())


def lowered(
    registry: Registry, target: Target, rows: tuple[int, ...] = ROWS, **facts: Any
) -> Lowering:
    spec = spec_of()
    packed = pack(spec, 1024, 2048)
    plain = Problem(spec, packed.shape, rows, len(rows) > 1, DenseUse.ANYWHERE, "off", 0.5)
    problem = replace(plain, **facts)
    return TritonCodegen().lower({problem: lambda: Contents(packed)}, target, registry)[problem]


def with_library(share: float) -> Registry:
    registry = sc.default_registry().copy()
    registry.register(Turned(share))
    return registry


def test_a_library_competes_by_its_roofline() -> None:
    cheap = lowered(with_library(0.1), H100)
    assert cheap.kernel is not None
    assert [str(part) for part in cheap.kernel.ranges] == ["any m: turned way=0"]
    assert cheap.reason.startswith("not measured; rooflines of H100 SXM: m=1 10x")
    dear = lowered(with_library(0.9), H100)
    assert dear.kernel is not None
    assert dear.kernel.template.name == "tiles"


def test_the_padding_of_few_rows_is_counted() -> None:
    # One row takes as much as eight: the generated kernel is ahead where memory is all that counts.
    few = lowered(sc.default_registry(), H100)
    assert few.kernel is not None
    assert few.kernel.template.name == "tiles"
    # On an A100 the arithmetic of 128 rows counts too, of which sparse tensor cores do the half.
    many = lowered(sc.default_registry(), A100)
    assert many.kernel is not None
    assert [str(part) for part in many.kernel.ranges] == ["any m: cusparselt alg_id=0"]


def test_graphs_for_other_m_choose_the_same_layout() -> None:
    for rows in ((1,), (4096,), ROWS):
        found = lowered(with_library(0.1), H100, rows)
        assert found.kernel is not None
        assert found.kernel.layout == "turned"
    only = lowered(sc.default_registry(), A100, (1,))
    assert only.kernel is not None
    assert only.kernel.layout == "cusparselt"


@pytest.mark.parametrize("use", [DenseUse.NEVER, DenseUse.ALONE])
def test_where_dense_may_not_serve_the_library_does(use: DenseUse) -> None:
    found = lowered(with_library(0.5), H100, dense=use)
    assert found.kernel is not None
    assert not any(part.dense for part in found.kernel.ranges)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = sparse_(nn.Linear(256, 512)), sparse_(nn.Linear(512, 256))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x))) + x


def run_fake(
    compiler: sc.Compiler, rows: Sequence[int], *, dynamic: bool = False
) -> tuple[Any, list[Any]]:
    """The report, and AOTAutograd's graphs of calls with these rows."""
    from torch._dynamo.backends.common import aot_autograd

    graphs: list[Any] = []

    def look(gm: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        graphs.append(gm)
        return gm.forward  # type: ignore[no-any-return]

    def finish(module: Any, inputs: Sequence[Any], layouts: Sequence[Tensor]) -> Any:
        return aot_autograd(fw_compiler=look, bw_compiler=look)(module, [*inputs, *layouts])

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = on_fake_cuda(MLP().half().eval().requires_grad_(False), mode)
    backend = lambda gm, inputs: compiler.compile(gm, inputs, finish)  # noqa: E731
    run = torch.compile(fake, backend=backend, dynamic=dynamic)
    with mode, torch.no_grad(), stub_driver(90):
        for m in rows:
            x = torch.empty(m, 256, dtype=torch.float16, device="cuda")
            y = run(x)
            assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    return compiler.report, graphs


def test_a_library_serves_a_compiled_model_on_a_fake_gpu() -> None:
    compiler = sc.Compiler(with_library(0.1), target="sm_90")
    report, (graph,) = run_fake(compiler, [4])
    for node in report.nodes:
        assert node.kernel.ranges == ("any m: turned way=0",)
        assert (node.kernel.template, node.kernel.source) == ("turned", "")
        assert node.packed_bytes == node.dense_bytes
    assert {n.epilogue for n in report.nodes} == {("gelu",), ("add",)}
    assert report.sources == {}
    # Inductor sees what the library does, and the epilogue behind it.
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("aten.addmm.default") == 2
    assert any("erf" in target or "gelu" in target for target in targets)
    assert not any("triton_kernel" in target for target in targets)


def test_a_library_serves_any_m_on_a_fake_gpu() -> None:
    compiler = sc.Compiler(with_library(0.1), target="sm_90")
    report, graphs = run_fake(compiler, [5, 9, 33], dynamic=True)
    assert all(node.packed for node in report.nodes)
    (graph,) = graphs
    assert graph.code.count("torch.ops.sparsecompile.linear.default") == 2


@pytest.mark.parametrize(
    ("name", "arch", "op"),
    [
        ("cusparselt", "sm_90", "_cslt_sparse_mm"),
        ("cutlass", "sm_80", "_sparse_semi_structured_"),
    ],
)
def test_torchs_libraries_on_fake_gpus(
    name: str, arch: str, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = sc.default_registry()
    only = Registry(*(c for c in registry.all(sc.Component) if c.name not in LIBRARIES - {name}))
    # Its roofline says that it is faster by far.
    extern = registry.get(sc.Extern, name)
    cost = Turned(0.1).cost
    monkeypatch.setattr(type(extern), "cost", lambda self, *args: cost(*args))
    report, (graph,) = run_fake(sc.Compiler(only, target=arch), [4])
    assert {node.kernel.template for node in report.nodes} == {name}
    assert sum(op in str(node.target) for node in graph.graph.nodes) == 2
    assert all(node.packed_bytes < 0.6 * node.dense_bytes for node in report.nodes)


LIBRARIES = {"cutlass", "cusparselt"}


def test_there_is_nothing_to_compile_ahead_of_time_for_a_library() -> None:
    registry = with_library(0.1)
    compiler = sc.Compiler(registry, target="sm_90")
    report = compiler.explain(sparse_(nn.Linear(64, 32)).half().eval(), torch.randn(4, 64).half())
    assert report.nodes[0].packed
    assert list(report_cases(report, registry)) == []
    assert "turned" in str(report)
