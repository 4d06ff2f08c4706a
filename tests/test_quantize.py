"""Quantised weights and activations: from the option to what the compiled model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile import packed_linears
from sparsecompile.kernels.prologue import ACTIVATIONS
from sparsecompile.operators.linear.spellings import LINEAR
from sparsecompile.testing import apply_passes, assert_no_worse, captured


class Attention(nn.Module):
    """q, k and v of one input, and what follows them; no zeros."""

    def __init__(self, k: int = 64) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(k, 48), nn.Linear(k, 24), nn.Linear(k, 24)
        self.o = nn.Linear(48, k)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        kv = torch.cat((self.k(x), self.v(x)), -1)
        return F.gelu(self.o(self.q(x) * kv))


def stored(linear: nn.Linear, codec: sc.Codec) -> Tensor:
    return sc.Format(sc.Dense(), codec).pack(linear.weight).unpack(torch.float32)


def edited(model: nn.Module, x: Tensor, *, until: str = "", **options: Any) -> sc.Edit:
    passes = sc.Compiler(**options).passes
    names = [p.name for p in passes]
    if until:
        passes = passes[: names.index(until) + 1]
    with torch.no_grad():
        edit = apply_passes(passes, *captured(model, x), **options)
        again = apply_passes(passes, edit.module, captured(model, x)[1], **options)
    assert str(again.module.graph) == str(edit.module.graph)
    return edit


def refusals(edit: sc.Edit, name: str) -> list[str]:
    return [r.reason for r in edit.rewrites if r.pass_name == name and r.reason]


def targets(edit: sc.Edit) -> list[Any]:
    return [n.target for n in edit.module.graph.nodes if n.op == "call_function"]


def test_the_graph_shows_what_is_quantized_before_it_is_packed() -> None:
    model, x = nn.Sequential(nn.Linear(64, 32)).requires_grad_(False), torch.randn(3, 64)
    weights_only = targets(edited(model, x, until="quantize", quantize="int8-weight-only"))
    assert weights_only == [sc.quantize_weight, LINEAR[0]]
    both = targets(edited(model, x, until="quantize", quantize="int8"))
    assert both == [sc.quantize_activation, sc.quantize_weight, LINEAR[0]]
    assert targets(edited(model, x, until="fold_quantized", quantize="int8")) == [sc.packed_linear]


@pytest.mark.parametrize(
    ("recipe", "format", "activations"),
    [
        ("int8-weight-only", "dense/int8", "float"),
        ("int8-weight-only[group=32]", "dense/int8[group=32]", "float"),
        ("int8", "dense/int8", "int8"),
        ("int4", "dense/int4[group=128]", "float"),
        ("int4[group=32]", "dense/int4[group=32]", "float"),
        ("int4[scales=float32]", "dense/int4[group=128,scales=float32]", "float"),
        ("int8[group=32, scales=float16]", "dense/int8[group=32,scales=float16]", "int8"),
        ("int4[group=32,zero_points]", "dense/int4[group=32,zero_points]", "float"),
        ("int3[group=32]", "dense/int3[group=32,minima]", "float"),
        ("int2[zero_points]", "dense/int2[group=32,zero_points]", "float"),
        ("ternary", "dense/ternary[group=128]", "float"),
        ("nf4", "dense/nf4[group=64]", "float"),
        ("fp8[e5m2]", "dense/fp8[e5m2]", "float"),
        ("codebook[rows=1]", "dense/codebook[rows=1]", "float"),
    ],
)
def test_recipes(recipe: str, format: str, activations: str) -> None:
    """q, k and v become one, what follows stays in the kernel, and both keep the definition."""
    model, x = Attention(), torch.randn(5, 64)
    edit = edited(model, x, quantize=recipe)
    first, second = packed_linears(edit)
    for match in (first, second):
        assert (match["format"], match["activations"]) == (format, activations)
    assert edit.value(first["weight"]).shape == (96, 64)
    assert second["epilogue"] == ("gelu",)
    codec, rounded = sc.default_registry().codec(format.partition("/")[2]), ACTIVATIONS[activations]

    def linear(module: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(rounded(x), stored(module, codec), module.bias)

    with torch.no_grad():
        (got,) = edit.module.forward(*captured(model, x)[1])
        kv = torch.cat((linear(model.k, x), linear(model.v, x)), -1)
        close(got, F.gelu(linear(model.o, linear(model.q, x) * kv)))


def test_linears_with_other_activations_are_not_merged() -> None:
    recipes = {"q.*": "int8-weight-only", "k.*": "int8", "v.*": "int8"}
    edit = edited(Attention(), torch.randn(2, 64), quantize=recipes)
    assert sorted(match["activations"] for match in packed_linears(edit)) == ["float", "int8"]


def test_pruned_and_quantized() -> None:
    model, x = nn.Sequential(nn.Linear(64, 32)).requires_grad_(False), torch.randn(3, 64)
    before = model[0].weight.clone()
    (node,) = sc.explain(model, x, prune="2:4", quantize="int4").nodes
    assert node.format == "n_m[2:4]/int4[group=128]"
    assert node.lossy == "prune 2:4, quantize int4[group=128]"
    assert torch.equal(model[0].weight, before)
    (node,) = sc.explain(sparse_(model[0]), x, quantize="int8", formats=["bitmap"]).nodes
    assert node.format == "bitmap/int8"
    assert node.lossy == "quantize int8, activations int8"
    assert [f.format for f in node.findings] == ["dense/int8", "bitmap/int8"]


def test_by_name_the_first_pattern_counts_and_the_rest_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(64, 64), sparse_(nn.Linear(64, 64)), nn.Linear(64, 64))
    recipes = {"0.*": "int4[group=32]", "[02].*": "int8-weight-only"}
    report = sc.Compiler(quantize=recipes).explain(model, torch.randn(3, 64))
    formats = [node.format for node in report.nodes]
    assert formats == ["dense/int4[group=32]", "n_m[2:4]/float", "dense/int8"]
    assert "lossy: quantize int4[group=32] on 1 weight" in str(report)
    assert [node.lossy for node in report.nodes][1] == ""


def test_nothing_is_quantized_unless_asked_for() -> None:
    assert all(f.codec.lossless for f in sc.Compiler().formats)
    (node,) = sc.explain(nn.Linear(64, 64), torch.randn(2, 64)).nodes
    assert not node.packed
    assert node.reason == "the weight holds no zeros"
    assert all(f.format.endswith("/float") for f in node.findings if "/" in f.format)
    edit = edited(MLP().requires_grad_(False), torch.randn(2, 32))
    assert {match["format"] for match in packed_linears(edit)} == {"n_m[2:4]/float"}


def holds_nan() -> nn.Module:
    model = nn.Linear(64, 32)
    model.weight.data[3, 5] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (holds_nan(), "not quantized: row 3, column 5 holds nan, int8 stores finite values up to"),
        (nn.Linear(1, 1, dtype=torch.bfloat16), "not quantized: takes 3 bytes, dense 2"),
    ],
)
def test_what_cannot_be_quantized_stays_as_it_is(model: nn.Module, reason: str) -> None:
    model = nn.Sequential(model).requires_grad_(False)
    k, dtype = model[0].weight.shape[1], model[0].weight.dtype
    edit = edited(model, torch.randn(2, k, dtype=dtype), quantize="int8")
    assert targets(edit) == [LINEAR[0]]
    assert refusals(edit, "fold_quantized")[0].startswith(reason)
    (node,) = sc.explain(model, torch.randn(2, k, dtype=dtype), quantize="int8").nodes
    assert node.reason == f"{refusals(edit, 'fold_quantized')[0]}; the weight holds no zeros"
    assert node.lossy == ""
    with pytest.raises(sc.RejectedError, match="was left dense: not quantized"):
        sc.explain(model, torch.randn(2, k, dtype=dtype), quantize="int8", strict=True)


def test_what_cannot_be_quantized_is_packed_without_loss() -> None:
    model = sparse_(nn.Linear(64, 32)).requires_grad_(False)
    model.weight[0, model.weight[0].nonzero()[0]] = float("inf")
    (node,) = sc.explain(model, torch.randn(2, 64), quantize="int4").nodes
    assert (node.format, node.lossy) == ("n_m[2:4]/float", "")


def test_refusals_of_the_option() -> None:
    model = nn.Sequential(nn.Linear(64, 32)).requires_grad_(False)
    x = torch.randn(2, 64)
    edit = edited(model, x, quantize={"head.*": "int8"})
    assert refusals(edit, "quantize") == ["no pattern of options['quantize'] matches 0.weight"]
    passes = [p for p in sc.Compiler(quantize="int8").passes if p.name == "quantize"]
    with torch.no_grad():
        edit = apply_passes(passes * 2, *captured(model, x))
    assert refusals(edit, "quantize") == ["quantized already"]
    backend = Packing(quantize="int8")
    torch.compile(model, backend=backend)(x)
    assert "gradients are enabled, and rounded activations have none" in backend.reason("0.weight")
    backend = Packing(quantize="int8-weight-only")
    x.requires_grad_(True)
    torch.compile(model, backend=backend)(x).sum().backward()
    close(x.grad, stored(model[0], sc.Int8()).sum(0).expand(2, 64))
    backend = Packing(quantize="int8-weight-only")
    torch.compile(nn.Linear(64, 32), backend=backend)(x)
    assert "requires grad and gradients are enabled" in backend.reason("weight")


def test_dtypes_that_differ_are_refused() -> None:
    weight = nn.Linear(16, 16).weight.requires_grad_(False)
    graph = torch.fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    graph.output(graph.call_function(F.linear, (x, w)))
    gm = torch.fx.GraphModule(nn.Module(), graph)
    x.meta["val"], w.meta["val"] = torch.randn(2, 16, dtype=torch.bfloat16), weight
    with torch.no_grad():
        edit = apply_passes(sc.Compiler(quantize="int8").passes, gm, [x.meta["val"], weight])
    (reason,) = refusals(edit, "fold_quantized")
    assert reason.startswith("not quantized: x is torch.bfloat16, the weight torch.float32")
    assert targets(edit) == [F.linear]


def test_a_write_before_the_linear_is_not_folded_over() -> None:
    model, x = nn.Sequential(nn.Linear(64, 32)).requires_grad_(False), torch.randn(3, 64)
    options = {"quantize": "int8"}
    edit = edited(model, x, until="quantize", **options)
    linear = next(n for n in edit.nodes() if n.target == LINEAR[0])
    edit.call("add_", (linear.args[0].args[0], 1), before=linear, value=edit.value(linear.args[0]))
    edit.check()
    inputs = captured(model, x)[1]
    again = apply_passes(sc.Compiler(**options).passes, edit.module, inputs)
    assert refusals(again, "fold_quantized") == ["add_ writes in place in between"]
    (got,) = again.module.forward(*(i.clone() for i in inputs))
    want = F.linear(sc.quantize_activation(x), stored(model[0], sc.Int8()), model[0].bias)
    close(got, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int9"}, "cannot quantize to 'int9'; write 'int8-weight-only'"),
        ({"quantize": "int4[lossless]"}, "what loses nothing is found without being asked for"),
        ({"quantize": "codebook[bits=9]"}, "codes of 9 bits, 1 to 8 are needed"),
        ({"quantize": "fp8[group=8,unscaled]"}, "fp8 has scales, or is unscaled"),
        ({"quantize": "int8[32]"}, "takes group=<columns>, scales="),
        ({"quantize": "int4[group=0]"}, "a group of 0 columns has no values"),
        ({"quantize": {"*": "int4[rows=3]"}}, "lossless, not 'rows=3'"),
        ({"quantize": "int8[scales=int8]"}, "bfloat16.*, not 'scales=int8'"),
        ({"quantize": "int8[,scales=float16]"}, "lossless, not ',scales=float16'"),
        ({"quantize": ["int8"]}, "'quantize' must be a recipe or a mapping"),
        ({"formats": ["n_m[2:4]/int8"]}, "is lossy: name the structure only, 'n_m\\[2:4\\]'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.OptionError, match=message):
        sc.Compiler(**options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("recipe", "codec", "rounded"),
    [
        ("int8-weight-only", sc.Int8(), ACTIVATIONS["float"]),
        ("int8", sc.Int8(), sc.quantize_activation),
    ],
)
def test_compiled(
    recipe: str, codec: sc.Codec, rounded: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """Under Inductor, for several lengths: what is stored, multiplied as torch would."""
    model = nn.Linear(96, 80).to(dtype).requires_grad_(False)
    compiler = sc.Compiler(quantize=recipe)
    fast = torch.compile(model, backend=compiler)
    weight = stored(model, codec)
    with torch.no_grad():
        for m in (3, 5, 40):
            x = torch.randn(2, m, 96).to(dtype)
            eager = F.linear(rounded(x), weight.to(dtype), model.bias)
            exact = F.linear(rounded(x.float()).double(), weight.double(), model.bias.double())
            assert_no_worse(fast(x), eager, exact)
            # And it is what was asked for: not the model itself.
            assert not torch.equal(fast(x), model(x))
    assert compiler.report.graphs == 2


def test_weights_that_change_are_quantized_anew_or_run_as_they_are() -> None:
    model, x = nn.Linear(64, 32).requires_grad_(False), torch.randn(3, 64)
    fast = torch.compile(model, backend=Packing(quantize="int8-weight-only"))
    with torch.no_grad():
        close(fast(x), F.linear(x, stored(model, sc.Int8()), model.bias))
        model.weight.mul_(3)
        close(fast(x), F.linear(x, stored(model, sc.Int8()), model.bias))
        model.weight[2, 3] = float("inf")
        assert torch.equal(fast(x), model(x))


def test_what_another_pass_leaves_in_the_graph_runs_as_it_is_defined() -> None:
    """Also under Inductor, which does not look into it."""
    model = nn.Sequential(nn.Linear(64, 64), sparse_(nn.Linear(64, 64))).requires_grad_(False)
    x = torch.randn(3, 64)
    options = {"quantize": {"0.*": "int8"}, "passes": {"without": ["fold_quantized"]}}
    fast = torch.compile(model, backend="sparse", options=options)
    with torch.no_grad():
        hidden = F.linear(sc.quantize_activation(x), stored(model[0], sc.Int8()), model[0].bias)
        close(fast(x), model[1](hidden))
