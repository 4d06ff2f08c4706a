"""The backend as users call it: under Inductor, in other processes, with gradients, exported."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile import backend as front_door
from sparsecompile import packed_linears
from sparsecompile.backend import _start_beside_dynamo
from sparsecompile.codegen.cpp import lower
from sparsecompile.testing import assert_no_worse


@pytest.mark.parametrize("options", [{}, {"inductor": {"cpp_wrapper": False}}])
def test_one_line(options: dict[str, Any]) -> None:
    """Under Inductor, in both of its wrappers, for several lengths and no more graphs than two."""
    model = MLP()
    compiler = sc.Compiler(**options)
    fast = torch.compile(model, backend=compiler)
    exact = MLP().double()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        for m in (3, 5, 9):
            x = torch.randn(2, m, 32)
            assert_no_worse(fast(x), model(x), exact(x.double()))
    assert compiler.report.graphs == 2
    assert [node.format for node in compiler.report.nodes] == ["n_m[2:4]/float"] * 2
    assert [node.epilogue for node in compiler.report.nodes] == [("gelu",), ("add",)]


def test_no_import_is_needed() -> None:
    script = """
import sys, torch
model = torch.nn.Linear(16, 16).requires_grad_(False)
model.weight[:, ::2] = 0
assert "sparsecompile" not in sys.modules
fast = torch.compile(model, backend="sparse", options={"inductor": {"cpp_wrapper": False}})
x = torch.randn(2, 16)
torch.testing.assert_close(fast(x), model(x))
from sparsecompile.weights.cache import PACK_CACHE
assert PACK_CACHE._memory(model.weight).made
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_takes_long_begins_while_dynamo_traces() -> None:
    """Not when the backend is named; before it is called, whatever the graph holds."""
    script = """
import torch
from sparsecompile.codegen.cpp import lower
begun = []
lower.start_loading = lambda: begun.append("native")
fast = torch.compile(torch.nn.Linear(16, 16), backend="sparse")
assert begun == []
fast(torch.randn(2, 16))
assert begun == ["native"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_begins_where_models_may_be_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(lower, "start_loading", lambda: begun.append("native"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    _start_beside_dynamo(None)
    assert begun == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _start_beside_dynamo(None)
    assert begun == ["native"]


def test_dynamo_goes_on_where_plug_ins_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> sc.Registry:
        raise sc.SparseCompileError("two plug-ins claim a name")

    monkeypatch.setattr(front_door, "default_registry", refuse)
    _start_beside_dynamo(None)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_modes_go_to_inductor(mode: str) -> None:
    model = MLP()
    x = torch.randn(2, 32)
    with torch.no_grad():
        close(torch.compile(model, backend="sparse", mode=mode)(x), model(x))


def test_dynamic_from_the_start() -> None:
    model = MLP()
    compiler = sc.Compiler(inductor={"cpp_wrapper": False})
    fast = torch.compile(model, backend=compiler, dynamic=True)
    with torch.no_grad():
        for m in (3, 5, 9):
            x = torch.randn(2, m, 32)
            close(fast(x), model(x))
    assert compiler.report.graphs == 1


@pytest.mark.parametrize("inductor", [False, True])
def test_gradients_reach_the_input_of_a_frozen_weight(inductor: bool) -> None:
    """As with LoRA: the frozen base is packed, what is around it trains."""
    model = MLP().requires_grad_(False)
    model.up.bias.requires_grad_(True)
    backend = sc.Compiler() if inductor else Packing()
    fast = torch.compile(model, backend=backend)
    results = []
    for run in (model, fast):
        x = torch.linspace(-1, 1, 128).view(4, 32).requires_grad_(True)
        model.up.bias.grad = None
        run(x).square().sum().backward()
        results.append((x.grad, model.up.bias.grad))
    for want, got in zip(*results, strict=True):
        close(got, want)
    nodes = (backend.report if inductor else backend.compiler.report).nodes
    assert all(node.packed and not node.epilogue for node in nodes)


def test_graphs_come_from_torch_caches_across_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with other weights: a graph does not depend on what is packed."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    script = """
import sys, torch
from torch._dynamo.utils import counters
torch.manual_seed(int(sys.argv[1]))
model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU()).requires_grad_(False)
model[0].weight.mul_(torch.rand(32, 32) < 0.3)
fast = torch.compile(model, backend="sparse", options={"inductor": {"cpp_wrapper": False}})
x = torch.randn(2, 32)
torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
print(counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"])
"""
    hits = [
        int(
            subprocess.run(
                [sys.executable, "-c", script, str(seed)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for seed in (0, 1)
    ]
    assert hits[0] == 0
    assert hits[1] > 0


class Regions(nn.Module):
    """A region that is called twice, and a linear."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(32, 32), head
        self.region = torch.compiler.nested_compile_region(lambda x: F.gelu(self.inner(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.region(self.region(x)))


def test_regions_that_are_compiled_once() -> None:
    model = Regions(sparse_(nn.Linear(32, 32)))
    compiler = sc.Compiler()
    x = torch.randn(3, 32)
    with torch.no_grad():
        close(torch.compile(model, backend=compiler)(x), model(x))
    assert [node.weight for node in compiler.report.nodes if node.packed] == ["head.weight"]


@pytest.mark.parametrize(
    ("model", "wrapper"),
    [
        (MLP(), True),
        (nn.Linear(32, 32), None),
        (Regions(sparse_(nn.Linear(32, 32))), False),
        (Regions(nn.Linear(32, 32)), None),
    ],
)
def test_only_packed_graphs_get_the_wrapper_in_cpp(
    model: nn.Module, wrapper: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never one with regions: what the wrapper makes of two calls of one does not compile."""
    patches: list[dict[str, Any]] = []

    def compile_fx(module: Any, inputs: Any, config_patches: dict[str, Any]) -> Any:
        patches.append(config_patches)
        return module.forward

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compile_fx)
    with torch.no_grad():
        torch.compile(model, backend=sc.Compiler())(torch.randn(3, 32))
    assert [patch.get("cpp_wrapper") for patch in patches] == [wrapper]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_copies_are_asked_for_the_same_and_have_compiled_nothing(
    again: Callable[[Any], Any],
) -> None:
    x = torch.randn(2, 32)
    plain, added = sc.Compiler(prune="2:4"), sc.Compiler(formats=["bitmap"])
    added.register(sc.Block(3, 5))
    for compiler in (plain, added):
        report = compiler.explain(MLP(), x)
        twin = again(compiler)
        assert twin.options == compiler.options
        assert twin.passes == compiler.passes
        assert [str(f) for f in twin.formats] == [str(f) for f in compiler.formats]
        assert twin.report.graphs == 0
        assert [n.format for n in twin.explain(MLP(), x).nodes] == [n.format for n in report.nodes]
    assert again(plain).registry is plain.registry
    assert again(added).registry.structure("block[3x5]") == sc.Block(3, 5)


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_copies_of_a_compiled_model_run(again: Callable[[Any], Any]) -> None:
    model = MLP()
    fast = torch.compile(model, backend=sc.Compiler(inductor={"cpp_wrapper": False}))
    x = torch.randn(2, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        twin = again(fast)
        twin.up.weight.mul_(2)
        close(twin(x), twin._orig_mod(x))
        close(fast(x), model(x))


def test_exported_programs_take_the_passes() -> None:
    """`torch.export` calls no backend; passes know its spelling, `aten.linear`."""
    from sparsecompile.testing import apply_passes

    model = MLP().requires_grad_(False)
    program = torch.export.export(model, (torch.randn(2, 32),))
    values = {
        **dict(program.graph_signature.inputs_to_parameters),
        **dict(program.graph_signature.inputs_to_buffers),
    }
    inputs = [
        program.state_dict[values[node.name]] if node.name in values else torch.randn(2, 32)
        for node in program.graph.nodes
        if node.op == "placeholder"
    ]
    edit = apply_passes(sc.Compiler().passes, program.graph_module, inputs)
    assert len(list(packed_linears(edit))) == 2
