"""compress: packed weights in the place of the dense ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from packing import MLP, Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.testing import assert_no_worse


class Attention(nn.Module):
    """Three linears of one input, one after them, between an embedding and itself as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(96, 64)
        self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
        self.out = nn.Linear(64, 64)
        self.head = nn.Linear(64, 96, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        mixed = torch.softmax(self.q(x) * self.k(x), -1) * self.v(x)
        return self.head(x + self.out(mixed))


def pruned_attention(dtype: torch.dtype = torch.float32) -> Attention:
    model = Attention().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            sparse_(module)
    return model.to(dtype)


def packed_weights(model: nn.Module) -> dict[str, sc.PackedTensor]:
    return {n: p for n, p in model.named_parameters() if isinstance(p, sc.PackedTensor)}


def test_weights_are_packed_where_that_is_smaller() -> None:
    model, x = MLP(), torch.randn(3, 32)
    model.dense = nn.Linear(32, 32)
    twin = copy.deepcopy(model)
    assert sc.compress(model) is model
    formats = {name: str(weight.packed.format) for name, weight in packed_weights(model).items()}
    assert formats == {"up.weight": "n_m[2:4]/float", "down.weight": "n_m[2:4]/float"}
    assert torch.equal(model(x), twin(x))
    assert model.state_dict().keys() == twin.state_dict().keys()
    before = list(model.parameters())
    assert all(a is b for a, b in zip(before, sc.compress(model).parameters(), strict=True))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"prune": {"*out*": "unstructured(0.8)", "*": "2:4"}},
    {"prune": "2:4", "quantize": {"[qkv].weight": "int4[group=32]", "tokens*": "int8-weight-only"}},
    {"formats": ["bitmap"]},
]


@pytest.mark.parametrize(
    ("options", "dtype"), list(zip(OPTIONS, 2 * (torch.float32, torch.bfloat16), strict=True))
)
@torch.no_grad()
def test_options_mean_what_they_mean_for_the_compiler(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    """The same weights in the same formats; and what is compiled is as exact as eager."""
    model, ids = pruned_attention(dtype), torch.tensor([[0, 95, 7], [7, 8, 9]])
    report = sc.explain(copy.deepcopy(model), ids, **options, tune="off")
    sc.compress(model, **options)
    formats = {name: str(weight.packed.format) for name, weight in packed_weights(model).items()}
    assert formats == {node.weight: node.format for node in report.nodes}
    check_compiled(model, ids, Packing())
    assert all(weight.stored.is_adopted for weight in packed_weights(model).values())


def check_compiled(model: nn.Module, ids: Tensor, backend: Packing) -> None:
    """All packed weights are taken as they are, and eager calls read the layouts from then on."""
    dense = {name: weight.packed.unpack() for name, weight in packed_weights(model).items()}
    eager = model(ids)
    exact = copy.deepcopy(model)
    for name, weight in dense.items():
        owner, _, attribute = name.rpartition(".")
        setattr(exact.get_submodule(owner), attribute, nn.Parameter(weight, False))
    if isinstance(exact, Attention):
        exact.head.weight = exact.tokens.weight
    compiled = torch.compile(model, backend=backend)
    assert_no_worse(compiled(ids), eager, exact.double()(ids))
    assert set(backend.packed) == set(dense)
    assert torch.equal(model(ids), eager)
    for name, weight in packed_weights(model).items():
        assert torch.equal(weight.packed.unpack(), dense[name])


@pytest.mark.parametrize("codec", ["int8-weight-only", "int4", "int4[group=32]"])
@torch.no_grad()
def test_integers_and_scales_come_back_from_a_layout(codec: str) -> None:
    model = nn.Linear(96, 64, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    sc.compress(model, quantize=codec)
    (weight,) = packed_weights(model).values()
    before = weight.packed
    torch.compile(model, backend=Packing())(torch.randn(2, 96, dtype=torch.bfloat16))
    assert weight.stored.is_adopted
    after = weight.packed
    assert all(torch.equal(after.values[name], tensor) for name, tensor in before.values.items())
    # Packed again of what was stored, but not of what the model had.
    assert not before.exact
    assert not after.exact


@torch.no_grad()
def test_through_inductor_merged_and_tied() -> None:
    model, ids = pruned_attention(), torch.tensor([[0, 95, 7], [7, 8, 9]])
    sc.compress(model, quantize="int4[group=32]")
    eager, backend = model(ids), sc.Compiler(tune="fast")
    compiled = torch.compile(model, backend=backend)
    close(compiled(ids), eager)
    close(compiled(ids[:1, :2]), model(ids[:1, :2]))
    nodes = {node.weight: node for node in backend.report.nodes}
    assert nodes["q.weight"].merged_with == ("k.weight", "v.weight")
    assert all(node.packed for node in nodes.values())
    # There is no dense weight that could have served.
    assert not any(t.chosen and t.candidate == "dense" for n in nodes.values() for t in n.trials)
    layouts = {id(w.stored._home.layout) for w in packed_weights(model).values()}
    assert len(layouts) == 3
    with torch.inference_mode():
        close(compiled(ids), eager)


@torch.no_grad()
def test_other_backends_run_it() -> None:
    model, ids = sc.compress(pruned_attention()), torch.tensor([[0, 95, 7]])
    for backend in ("eager", "inductor"):
        close(torch.compile(model, backend=backend)(ids), model(ids))


@torch.no_grad()
def test_changes_are_noticed() -> None:
    model, x = sc.compress(MLP()), torch.randn(3, 32)
    backend = Packing()
    compiled = torch.compile(model, backend=backend)
    close(compiled(x), model(x))
    other = sc.compress(MLP())
    model.load_state_dict(other.state_dict(), assign=True)
    close(compiled(x), other(x))
    assert backend.compiler.report.graphs == 1
    other = sc.compress(MLP(), quantize="int8-weight-only")
    model.up.weight = other.up.weight
    close(compiled(x), model(x))
    sc.refresh(compiled)
    close(compiled(x), model(x))
    model.up.weight = nn.Parameter(torch.randn(64, 32), False)
    close(compiled(x), model(x))


@torch.no_grad()
def test_conversion_comes_before_compilation() -> None:
    """Torch puts no other tensor in the place of a subclass that compiled code refers to."""
    model, x = sc.compress(MLP()), torch.randn(3, 32)
    model.bfloat16().float()
    want, compiled = model(x), torch.compile(model, backend=Packing())
    close(compiled(x), want)
    with pytest.raises(RuntimeError, match="Couldn't swap"):
        model.bfloat16()
    close(compiled(x), want)


def test_weights_in_grad_mode() -> None:
    """Packed weights are frozen: gradients reach inputs and biases through packed kernels."""
    model, x = sc.compress(MLP()), torch.randn(3, 32, requires_grad=True)
    backend = Packing()
    compiled = torch.compile(model, backend=backend)
    model(x).square().sum().backward()
    want, x.grad, bias = x.grad, None, model.up.bias.grad.clone()
    model.up.bias.grad = None
    compiled(x).square().sum().backward()
    torch.testing.assert_close(x.grad, want)
    torch.testing.assert_close(model.up.bias.grad, bias)
    assert set(backend.packed) == {"up.weight", "down.weight"}
    model.up.weight.requires_grad_()
    compiled(x).sum().backward()
    assert "up.weight requires grad" in backend.reason("up.weight")
    assert model.up.weight.grad is not None


@torch.no_grad()
def test_what_is_packed_is_not_packed_again() -> None:
    """Pruning and other quantisation come too late; activations can still be rounded."""
    x = torch.randn(3, 32)
    cases = (
        ({}, {"prune": "1:4"}, "prune", "packed as n_m[2:4]/float: prune it before"),
        ({}, {"quantize": "int4"}, "fold_quantized", "holds the weight packed as n_m[2:4]/float"),
        ({"quantize": "int8-weight-only"}, {"quantize": "int8"}, "", ""),
    )
    for compress, options, name, reason in cases:
        model, backend = sc.compress(MLP(), **compress), Packing(**options)
        got = torch.compile(model, backend=backend)(x)
        torch.testing.assert_close(got, model(x), rtol=0.1 if not name else 1e-5, atol=0.1)
        assert set(backend.packed) == {"up.weight", "down.weight"}
        (graph,) = backend.compiler.report.graph_reports
        assert not name or any(r.pass_name == name and reason in r.reason for r in graph.rewrites)
        specs = {node.kernel.spec for node in graph.nodes}
        assert name or all("activations=int8" in spec for spec in specs)
        torch._dynamo.reset()


@torch.no_grad()
def test_a_function_of_a_packed_weight_stays_as_it_is() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = sparse_(nn.Linear(32, 32))
            self.plain = sparse_(nn.Linear(32, 32, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.inner.weight + F.linear(x, self.plain.weight)

    model, x, backend = Transposed(), torch.randn(3, 32), Packing()
    model.inner = sc.compress(model.inner)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert backend.reason("inner.weight") == (
        "the graph computes t(inner.weight) of a weight that is packed in the model"
    )


@torch.no_grad()
def test_packed_and_dense_linears_are_not_merged() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = sparse_(nn.Linear(32, 32)), sparse_(nn.Linear(32, 32))

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.b(x)

    model, x, backend = Two(), torch.randn(3, 32), Packing()
    sc.compress(model.a)
    close(torch.compile(model, backend=backend)(x), model(x))
    assert all(not node.merged_with for node in backend.compiler.report.nodes)
