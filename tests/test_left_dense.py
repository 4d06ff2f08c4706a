"""What cannot be packed runs dense and says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, func, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.kernels.kernel import Lowering


def test_trainable_weights_are_left_dense_and_say_so() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    fast(x).sum().backward()
    assert model.up.weight.grad is not None
    assert "call the model under torch.no_grad(), or freeze" in backend.reason("up.weight")
    with torch.no_grad():
        close(fast(x), model(x))
    assert sorted(backend.packed) == ["down.weight", "up.weight"]


def test_weights_made_under_inference_mode_are_left_alone() -> None:
    with torch.inference_mode():
        model = sparse_(nn.Linear(32, 32))
        backend = Packing()
        x = torch.randn(4, 32)
        close(torch.compile(model, backend=backend)(x), model(x))
    assert "made under inference_mode" in backend.reason("weight")


def test_autocast_is_left_alone() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(fast(x), model(x))
    assert "autocast is on" in backend.reason("up.weight")


def test_weights_that_no_linear_reads_are_listed() -> None:
    """A fast path of torch is one call; what is asked of a table of zeros is no linear either."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.table = nn.Parameter((torch.rand(8, 32) > 0.8).float())
            self.dense = nn.Parameter(torch.randn(8, 32))
            self.embedding = nn.Parameter(torch.zeros(8, 32))

        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            return (
                self.layer(x) + self.table.relu() + self.dense + F.embedding(index, self.embedding)
            )

    model, backend = Scaled().eval(), Packing()
    x, index = torch.randn(2, 8, 32), torch.arange(8)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x, index), model(x, index))
    fused = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight")
    for name in (*fused, "linear2.weight"):
        assert "set_fastpath_enabled(False) makes it linears" in backend.reason(f"layer.{name}")
    assert backend.reason("table") == "read by relu: there is no kernel for it"
    assert backend.reason("embedding") == "read by embedding: there is no kernel for it"
    nodes = backend.compiler.report.nodes
    assert len(nodes) == 6
    assert next(node for node in nodes if node.weight == "table").shape == (8, 32)


TRANSFORMS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "vmap": lambda model, x: func.vmap(model)(x),
    "grad": lambda model, x: func.grad(lambda y: model(y).sum())(x),
    "vjp": lambda model, x: func.vjp(model, x)[0],
    "jvp": lambda model, x: func.jvp(model, (x,), (x,)),
    "jacrev": lambda model, x: func.jacrev(model)(x[0]),
    "jacfwd": lambda model, x: func.jacfwd(model)(x[0]),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_torch_func_are_left_alone(name: str) -> None:
    model = MLP().requires_grad_(False)
    backend = Packing(prune={"up.*": "2:4"})
    x = torch.randn(4, 32)
    fast = torch.compile(partial(TRANSFORMS[name], model), backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), TRANSFORMS[name](model, x))
    nodes = backend.compiler.report.nodes
    assert len(nodes) == 2
    assert all("torch.func transforms it (vmap, grad, jvp, ...)" in n.reason for n in nodes)


def test_a_weight_changed_in_the_graph_is_left_alone() -> None:
    class Decays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = sparse_(nn.Linear(32, 32)).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            self.inner.weight.mul_(0.5)
            return y + self.inner(x)

    model, twin = Decays(), Decays()
    twin.load_state_dict(model.state_dict())
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(3):
            close(fast(x), twin(x))
    assert "also used by mul_" in backend.reason("inner.weight")


class Scaled(Tensor):
    """A tensor subclass with a meaning of its own."""


def left_alone() -> list[tuple[nn.Module, str]]:
    subclass = sparse_(nn.Linear(32, 32))
    subclass.weight = nn.Parameter(subclass.weight.detach().as_subclass(Scaled), False)

    class Takes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, x[:, :32].relu() * 0)

    double = sparse_(nn.Linear(32, 32).double())

    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = double

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.double())

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = sparse_(nn.Linear(32, 32))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, F.normalize(self.inner.weight))

    return [
        (subclass, "is a tensor subclass, Scaled"),
        (Takes(), "the weight is computed in the graph"),
        (Double(), "the weight is torch.float64"),
        (Normed(), "the weight is computed in the graph"),
        (nn.Linear(32, 32), "the weight holds no zeros"),
        (nn.Linear(32, 0), "the weight is empty"),
    ]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
@pytest.mark.parametrize("index", range(6))
def test_what_cannot_be_packed_runs_dense_and_says_why(index: int) -> None:
    model, reason = left_alone()[index]
    backend = Packing()
    x = torch.randn(32, 32)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(x), model(x))
    (node,) = backend.compiler.report.nodes
    assert not node.packed
    assert reason in node.reason


def test_a_weight_that_is_an_input_is_left_alone() -> None:
    backend = Packing()
    fast = torch.compile(lambda x, w: F.linear(x, w), backend=backend)
    x, w = torch.randn(4, 32), torch.zeros(32, 32)
    close(fast(x, w), F.linear(x, w))
    (node,) = backend.compiler.report.nodes
    assert node.reason == "the weight is an input of the model, not one of its parameters"


def test_a_weight_with_few_zeros_stays_dense() -> None:
    model = nn.Linear(64, 64).requires_grad_(False)
    model.weight[0, 0] = 0
    (node,) = sc.explain(model, torch.randn(2, 64)).nodes
    assert node.reason == "no format that fits is smaller than dense"
    assert {f.format for f in node.findings} >= {"n_m[2:4]/float", "bitmap/float"}
    assert all(f.reason for f in node.findings)


def test_a_format_without_a_kernel_is_refused() -> None:
    registry = sc.default_registry()
    without = sc.Registry(*(c for c in registry.all(sc.Component) if c.name != "cpp/n_m"))
    (node,) = (
        sc.Compiler(without, formats=["n_m[2:4]"])
        .explain(sparse_(nn.Linear(32, 32)), torch.randn(2, 32))
        .nodes
    )
    assert not node.packed
    assert "no C++ fragment reads 'n_m'" in node.findings[0].reason


def test_a_library_call_that_is_chosen_leaves_the_node_dense() -> None:
    registry = sc.default_registry()

    class Chooses(sc.Codegen):
        device = "cpu"

        def sources_digest(self) -> str:
            return ""

        def candidates(self, *args: Any) -> Sequence[Any]:
            return registry.all(sc.Extern)

        def lower(self, problems: Any, *args: Any) -> dict[Any, Lowering]:
            return dict.fromkeys(problems, Lowering(None, (), "the library is faster"))

    others = (c for c in registry.all(sc.Component) if not isinstance(c, sc.Codegen))
    compiler = sc.Compiler(sc.Registry(Chooses(), *others), strict=True)
    model = MLP()
    x = torch.randn(3, 32)
    report = compiler.explain(model, x)
    assert [node.reason for node in report.nodes] == ["the library is faster"] * 2
    assert not any(node.packed for node in report.nodes)
    assert "gelu" in report.after


def test_strict_raises_for_zeros_that_are_not_used() -> None:
    model = sparse_(nn.Linear(32, 32))
    fast = torch.compile(model, backend=Packing(strict=True, formats=["block[16x16]"]))
    with pytest.raises(Exception, match="weight was left dense: no format"), torch.no_grad():
        fast(torch.randn(2, 32))


def test_without_a_compiler_the_model_runs_dense_with_one_warning(
    cache_folder: Path, tmp_path: Path
) -> None:
    script = f"""
import os, warnings, torch, sparsecompile as sc
os.environ.update(PATH={str(tmp_path)!r}, SPARSECOMPILE_CACHE_DIR={str(cache_folder)!r})
os.environ.pop("CXX", None)
model = torch.nn.Linear(32, 32).requires_grad_(False)
model.weight[:, ::2] = 0
x = torch.randn(2, 32)
backend = sc.Compiler()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
(warning,) = [w for w in caught if "sparsecompile" in str(w.message)]
assert "g++" in str(warning.message), warning.message
(node,) = backend.report.nodes
assert "g++" in node.reason and not node.packed, node
torch._dynamo.reset()
try:
    torch.compile(model, backend="sparse", options={{"strict": True}})(x)
except sc.BuildError as error:
    assert error.source is None
else:
    raise AssertionError("strict did not raise")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_a_pass() -> None:
    model = MLP()
    report = sc.explain(model, torch.randn(2, 32), passes={"without": ["fuse_epilogue"]})
    assert all(node.packed and not node.epilogue for node in report.nodes)
    report = sc.explain(model, torch.randn(2, 32), passes={"without": ["pack_linear"]})
    assert {node.reason for node in report.nodes} == {"no pass looked at it"}
