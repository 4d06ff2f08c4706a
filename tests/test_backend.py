"""What the backend promises about models that change, share, mutate, train and move."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import sparsecompile as sc
from sparsecompile.compiler import _run_eagerly
from sparsecompile.testing import assert_no_worse
from sparsecompile.weights import PACK_CACHE


class Packing:
    """A Compiler whose packed graphs run as they are: everything but Inductor."""

    def __init__(self, **options: Any) -> None:
        self.compiler = sc.Compiler(**options)

    def __call__(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        return self.compiler.compile(gm, inputs, _run_eagerly)

    @property
    def packed(self) -> list[str]:
        return [node.weight for node in self.compiler.report.nodes if node.packed]

    def reason(self, weight: str) -> str:
        (node,) = [n for n in self.compiler.report.nodes if n.weight == weight and not n.packed]
        return node.reason


def sparse_(linear: nn.Linear, structure: sc.Structure | None = None) -> nn.Linear:
    """Prune a linear in place to 2:4."""
    with torch.no_grad():
        linear.weight.mul_((structure or sc.NM(2, 4)).prune(linear.weight))
    return linear


class MLP(nn.Module):
    """Two linears with an activation in between, 2:4."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.up, self.down = sparse_(nn.Linear(width, 64)), sparse_(nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


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
from sparsecompile.weights import PACK_CACHE
assert len(PACK_CACHE._entries) == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_modes_go_to_inductor(mode: str) -> None:
    model = MLP()
    x = torch.randn(2, 32)
    with torch.no_grad():
        close(torch.compile(model, backend="sparse", mode=mode)(x), model(x))


def writes() -> list[tuple[str, Callable[[MLP], object]]]:
    other = MLP()
    return [
        ("in place", lambda m: m.up.weight.mul_(2)),
        ("through .data", lambda m: setattr(m.up.weight, "data", m.up.weight.data * 3)),
        ("a new parameter", lambda m: setattr(m.up, "weight", nn.Parameter(m.up.weight * 2))),
        ("load_state_dict", lambda m: m.load_state_dict(other.state_dict())),
        ("assign", lambda m: m.load_state_dict(other.state_dict(), assign=True)),
        ("dense", lambda m: m.up.weight.add_(1)),
        ("bias", lambda m: m.up.bias.add_(1)),
        ("zero", lambda m: m.up.weight.zero_()),
    ]


@pytest.mark.parametrize(("name", "write"), writes(), ids=[name for name, _ in writes()])
def test_a_changed_weight_is_noticed(name: str, write: Callable[[MLP], object]) -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        write(model)
        close(fast(x), model(x))
        model.up.weight.copy_(sparse_(nn.Linear(32, 64)).weight)
        close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1 or name in ("a new parameter", "assign")


def test_dense_and_back_without_a_recompile() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    before = model.up.weight.detach().clone()
    with torch.no_grad():
        fast(x)
        model.up.weight.copy_(torch.randn(64, 32))
        close(fast(x), model(x))
        model.up.weight.copy_(before)
        close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1


@pytest.mark.parametrize("formats", [["bitmap"], ["csr"], ["block[8x8]"]])
def test_a_weight_that_needs_more_bytes_fits_the_same_graph(formats: list[str]) -> None:
    model = nn.Linear(64, 64).requires_grad_(False)
    model.weight[:56] = 0
    backend = Packing(formats=formats)
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 64)
    close(fast(x), model(x))
    model.weight[:16] = 1
    close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1


def test_layers_compiled_one_by_one_share_a_graph_and_keep_their_weights() -> None:
    """Dynamo compiles one graph for modules of one structure and passes it each one's weights."""
    layers = [MLP() for _ in range(3)]
    layers[2].up.weight.data.fill_(1)
    backend = Packing()
    for layer in layers:
        layer.compile(backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        for _ in range(2):
            for layer in layers:
                close(layer(x), layer.forward(x))
        packs = [dict(PACK_CACHE._entries[layer.down.weight]) for layer in layers[:2]]
        for layer in layers:
            close(layer(x), layer.forward(x))
    assert backend.compiler.report.graphs == 1
    for layer, before in zip(layers, packs, strict=False):
        after = PACK_CACHE._entries[layer.down.weight]
        assert all(after[key] is value for key, value in before.items()), "packed again"


def test_explaining_often() -> None:
    model = MLP()
    for _ in range(12):
        nodes = sc.explain(model, torch.randn(2, 32)).nodes
        assert [node.packed for node in nodes] == [True, True]


def test_dynamic_from_the_start() -> None:
    model = MLP()
    compiler = sc.Compiler(inductor={"cpp_wrapper": False})
    fast = torch.compile(model, backend=compiler, dynamic=True)
    with torch.no_grad():
        for m in (3, 5, 9):
            x = torch.randn(2, m, 32)
            close(fast(x), model(x))
    assert compiler.report.graphs == 1


def test_refresh_sees_what_torch_does_not() -> None:
    model = MLP()
    fast = torch.compile(model, backend=Packing())
    x = torch.randn(4, 32)
    with torch.no_grad():
        fast(x)
        model.up.weight.data.mul_(2)
        sc.refresh(fast)
        close(fast(x), model(x))


def test_a_tied_weight_is_packed_once_and_read_by_the_embedding() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(48, 32)
            self.head = sparse_(nn.Linear(32, 48, bias=False))
            self.embedding.weight = self.head.weight
            self.again = nn.Linear(32, 48, bias=False)
            self.again.weight = self.head.weight

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens)
            return self.head(x) - self.again(x + 1)

    model = Tied()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    tokens = torch.arange(7)
    with torch.no_grad():
        close(fast(tokens), model(tokens))
        assert len(backend.packed) == 1
        model.head.weight.mul_(2)
        close(fast(tokens), model(tokens))


def test_graph_breaks_and_recompiles_pack_once() -> None:
    model = MLP()

    def run(x: Tensor) -> Tensor:
        x = model(x)
        torch._dynamo.graph_break()
        return model(x)

    fast = torch.compile(run, backend=Packing())
    with torch.no_grad():
        for m in (2, 3, 4):
            x = torch.randn(m, 32)
            close(fast(x), run(x))
    for weight in (model.up.weight, model.down.weight):
        assert len([k for k in PACK_CACHE._entries[weight] if k[1][0] == "layout"]) == 1


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


def test_inference_mode() -> None:
    model = MLP()
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.inference_mode():
        close(fast(x), model(x))
        model.up.weight.mul_(2)
        close(fast(x), model(x))
    assert len(backend.packed) == 2


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


def test_nan_and_infinity_in_kept_weights() -> None:
    model = sparse_(nn.Linear(32, 32)).requires_grad_(False)
    kept = (model.weight != 0).nonzero()
    model.weight[tuple(kept[0])] = float("nan")
    model.weight[tuple(kept[40])] = float("inf")
    backend = Packing()
    x = torch.randn(4, 32).abs() + 0.1
    torch.testing.assert_close(
        torch.compile(model, backend=backend)(x), model(x), equal_nan=True, rtol=1e-5, atol=1e-5
    )
    assert backend.packed


def test_torch_pruned_modules_are_packed_with_their_masks() -> None:
    """`torch.nn.utils.prune` computes `weight_orig * weight_mask` at every call."""
    model = nn.Sequential(nn.Linear(32, 32))
    prune.l1_unstructured(model[0], "weight", 0.8)
    backend = Packing()
    fast = torch.compile(model, backend=backend)
    x = torch.randn(4, 32)
    with torch.no_grad():
        close(fast(x), model(x))
        model[0].weight_mask.fill_(0)
        close(fast(x), model(x))
    assert len(backend.packed) == 1


def test_strict_raises_for_zeros_that_are_not_used() -> None:
    model = sparse_(nn.Linear(32, 32))
    fast = torch.compile(model, backend=Packing(strict=True, formats=["block[16x16]"]))
    with pytest.raises(Exception, match="weight was left dense: no format"), torch.no_grad():
        fast(torch.randn(2, 32))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prun": "2:4"}, sc.OptionError, "unknown option 'prun'; did you mean 'prune'"),
        ({"formats": ["bitmask"]}, sc.RegistrationError, "did you mean 'bitmap'"),
        ({"formats": ["n_m[4:2]"]}, sc.RegistrationError, "4:2 is not an n:m"),
        ({"formats": "bitmap"}, sc.OptionError, "'formats' must be a list of format names"),
        ({"prune": "most"}, sc.OptionError, "cannot prune to 'most'"),
        ({"passes": {"fuse": {}}}, sc.OptionError, "no pass is called 'fuse'"),
        ({"passes": {"merge_linears": {"many": 1}}}, sc.OptionError, "has no option many"),
        ({"strict": 1}, sc.OptionError, "'strict' must be True or False"),
        ({"target": "tpu"}, sc.OptionError, "no target 'tpu' on this machine"),
        ({"inductor": {"freezing": True}}, sc.OptionError, "never notices that they change"),
    ],
)
def test_bad_options_reach_the_user_as_what_they_are(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    fast = torch.compile(MLP(), backend="sparse", options=options)
    with pytest.raises(error, match=message) as raised:
        fast(torch.randn(2, 32))
    assert isinstance(raised.value, sc.SparseCompileError)


def test_options_of_torch_compile_add_to_those_of_the_compiler() -> None:
    compiler = sc.Compiler(formats=["bitmap"])
    with pytest.raises(sc.OptionError, match="cannot prune"):
        torch.compile(MLP(), backend=compiler, options={"prune": "x"})(torch.randn(2, 32))


def test_a_pass_that_raises_reaches_the_user() -> None:
    class Broken(sc.Pass):
        name, phase = "broken", sc.Phase.FINISH

        def run(self, edit: sc.Edit) -> None:
            raise KeyError("lost")

    compiler = sc.Compiler()
    compiler.register(Broken())
    with pytest.raises(
        sc.PassError, match=r"pass 'broken' failed.*KeyError: 'lost' .*test_backend"
    ):
        torch.compile(MLP(), backend=compiler)(torch.randn(2, 32))


def test_without_a_pass() -> None:
    model = MLP()
    report = sc.explain(model, torch.randn(2, 32), passes={"without": ["fuse_epilogue"]})
    assert all(node.packed and not node.epilogue for node in report.nodes)
    report = sc.explain(model, torch.randn(2, 32), passes={"without": ["pack_linear"]})
    assert {node.reason for node in report.nodes} == {"no pass looked at it"}


def test_a_format_without_a_kernel_is_refused() -> None:
    registry = sc.default_registry()
    without = sc.Registry(
        *(
            c
            for kind in (sc.Structure, sc.Codec, sc.Pass, sc.Template, sc.Extern, sc.Codegen)
            for c in registry.all(kind)
        ),
        *(f for f in registry.all(sc.Fragment) if f.name != "cpp/n_m"),
    )
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

        def lower(self, *args: Any) -> sc.Extern:
            return registry.all(sc.Extern)[0]

    kinds = (sc.Structure, sc.Codec, sc.Pass, sc.Extern)
    compiler = sc.Compiler(sc.Registry(Chooses(), *(c for k in kinds for c in registry.all(k))))
    model = MLP()
    x = torch.randn(3, 32)
    report = compiler.explain(model, x)
    assert not any(node.packed for node in report.nodes)
    assert "gelu" in report.after


def test_dump_writes_every_step(tmp_path: Path) -> None:
    compiler = sc.Compiler(dump=str(tmp_path / "dump"))
    compiler.explain(MLP(), torch.randn(2, 32))
    folder = tmp_path / "dump"
    steps = sorted(p.name for p in (folder / "graph_000").iterdir())
    assert steps[0] == "00_captured"
    assert steps[-1].endswith("_lowered")
    assert [s.partition("_")[2] for s in steps[1:-1]] == [p.name for p in compiler.passes]
    assert "packed_linear" in (folder / "graph_000" / steps[-2] / "graph.py").read_text()
    assert len(list((folder / "sources").glob("*.cpp"))) == 2
    assert json.loads((folder / "report.json").read_text())["graphs"] == 1
    assert (folder / "report.txt").read_text()


def test_dump_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(sc.CacheError, match="cannot dump to"):
        sc.explain(MLP(), torch.randn(2, 32), dump=str(tmp_path / "file"), strict=True)


@contextlib.contextmanager
def one_warning(message: str) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert len([w for w in caught if message in str(w.message)]) == 1


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
    assert len(list(edit.packed_nodes())) == 2
