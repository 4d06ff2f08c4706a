"""`fuse_low_rank`: which products are multiplied out, and what becomes of them."""

from __future__ import annotations

import pytest
import torch
from chains import Chain, check, reasons
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import Packing, close, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc
from sparsecompile.passes.canonicalize import Canonicalize
from sparsecompile.passes.fuse_low_rank import FuseLowRank
from sparsecompile.testing import captured, check_passes

ROWS = (0, 1, 3, 17, 64, 130)


@st.composite
def chains(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Chains of two and three, thick and thin, some with zeros."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    length = draw(st.integers(3, 4))
    sizes = draw(st.lists(st.sampled_from((8, 48, 64, 160)), min_size=length, max_size=length))
    biases = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    model = Chain(*sizes, biases=biases)
    if draw(st.booleans()):
        sparse_(model.layers[draw(st.integers(0, length - 2))])
    dtype = draw(st.sampled_from((torch.float32, torch.bfloat16)))
    return model.to(dtype), torch.randn(draw(st.sampled_from(ROWS)), sizes[0]).to(dtype)


def test_any_chain_is_as_exact_as_eager() -> None:
    found: set[bool] = set()

    @given(chains())
    @settings(max_examples=24)
    def run(case: tuple[nn.Module, Tensor]) -> None:
        torch._dynamo.reset()
        backend = Packing()
        check(*case, backend)
        found.update(not reason for reason in reasons(backend))

    run()
    assert found == {True, False}


@given(chains())
@settings(max_examples=10)
def test_the_pass_preserves_the_function(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    gm, inputs = captured(model.float(), x.float())
    check_passes([Canonicalize(), FuseLowRank()], gm, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ROWS)
def test_a_product_that_is_cheaper_is_multiplied_out(rows: int, dtype: torch.dtype) -> None:
    model, backend = Chain(64, 256, 96).to(dtype), Packing()
    check(model, torch.randn(rows, 64).to(dtype), backend)
    (node,) = backend.compiler.report.nodes
    assert node.weight == "layers.1.weight x layers.0.weight"
    assert (node.shape, node.format, node.part) == ((96, 64), "dense/float", None)
    assert node.expression == "product(96x256, 256x64), multiplied out"
    assert node.dense_bytes == 256 * (96 + 64) * dtype.itemsize
    assert reasons(backend) == [""]
    # Its bias is made once, too.
    assert "product" not in backend.compiler.report.after


def test_the_report() -> None:
    text = str(sc.explain(Chain(64, 256, 96), torch.randn(3, 64), tune="off"))
    assert "product(96x256, 256x64), multiplied out, one kernel call for\n" in text
    assert "164 -> 25.2 kB" in text


def test_factors_of_a_low_rank_stay_as_they_are() -> None:
    model, backend = Chain(64, 8, 96), Packing()
    check(model, torch.randn(3, 64), backend)
    (reason,) = reasons(backend)
    assert reason == (
        "product(96x8, 8x64) of rank 8, multiplied out, takes 26,496 bytes, not 7,232: m=3"
    )
    assert reason in backend.reason("layers.1.weight")


def test_factors_are_packed_as_any_other() -> None:
    model, backend = Chain(64, 16, 96), Packing()
    sparse_(model.layers[0])
    sparse_(model.layers[1])
    check(model, torch.randn(3, 64), backend)
    assert backend.packed == ["layers.0.weight", "layers.1.weight"]


def test_work_decides_where_bytes_do_not() -> None:
    """At 4096 rows what is between the factors is more to move than the product."""
    model, backend = Chain(64, 30, 64), Packing()
    check(model, torch.randn(4096, 64), backend)
    (reason,) = reasons(backend)
    assert "takes 33,554,432 operations, not 31,457,280: m=4096" in reason


def test_of_zeros_less_is_to_be_read() -> None:
    model, backend = Chain(64, 64, 64), Packing()
    for layer in model.layers:
        layer.weight.mul_(sc.Block(16, 16).prune(layer.weight, 0.9))
    check(model, torch.randn(3, 64), backend)
    assert "multiplied out, takes" in reasons(backend)[0]
    assert len(backend.packed) == 2


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ((64, 256, 256, 96), [(96, 64)]),
        ((512, 8, 512, 8), [(8, 512)]),
        ((64, 8, 256, 64), [(8, 64), (64, 8)]),
    ],
)
def test_longer_chains(sizes: tuple[int, ...], shapes: list[tuple[int, int]]) -> None:
    model, backend = Chain(*sizes), Packing()
    check(model, torch.randn(3, sizes[0]), backend)
    assert [node.shape for node in backend.compiler.report.nodes] == shapes


def test_other_spellings() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(256, 64)), nn.Parameter(torch.randn(256, 96))
            self.bias = nn.Parameter(torch.randn(96))
            self.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x @ self.a.t(), self.b)

    backend = Packing()
    check(Other(), torch.randn(3, 64), backend)
    assert [node.shape for node in backend.compiler.report.nodes] == [(96, 64)]


class Special(Chain):
    """A chain with something between its linears."""

    def __init__(self, kind: str) -> None:
        super().__init__(64, 256, 96)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layers
        h = first(x)
        if self.kind == "writes":
            x.add_(1)
        y = second(h)
        return torch.cat((y, h), -1) if self.kind == "read" else y


REFUSED = [
    ("read", "what the first of two linears gives is read by others, too"),
    ("writes", "add_ writes in place in between"),
]


@pytest.mark.parametrize(("kind", "reason"), REFUSED)
def test_chains_that_are_left_alone(kind: str, reason: str) -> None:
    backend = Packing()
    fast = torch.compile(Special(kind), backend=backend)
    x = torch.randn(100, 64)
    model = Special(kind)
    model.load_state_dict(fast._orig_mod.state_dict())
    close(fast(x.clone()), model(x.clone()))
    assert any(reason in found for found in reasons(backend))


def test_a_factor_that_is_an_activation() -> None:
    class Net(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.layers[0](x), x @ x.t()[:, :64])

    backend = Packing()
    model = Net(256, 256)
    model.layers[0] = nn.Linear(64, 64).requires_grad_(False)
    check(model, torch.randn(64, 64), backend)
    assert any("computed in the graph" in reason for reason in reasons(backend))


def test_a_factor_that_is_packed_in_the_model() -> None:
    model, backend = Chain(64, 256, 96), Packing()
    sparse_(model.layers[0])
    sc.compress(model)
    with torch.no_grad():
        close(torch.compile(model, backend=backend)(torch.ones(3, 64)), model(torch.ones(3, 64)))
    (reason,) = reasons(backend)
    assert reason == "the model holds layers.0.weight packed as n_m[2:4]/float"


def test_weights_that_train_are_left_alone() -> None:
    model, backend = Chain(64, 256, 96).requires_grad_(True), Packing()
    torch.compile(model, backend=backend)(torch.randn(3, 64)).sum().backward()
    assert model.layers[0].weight.grad is not None
    assert "requires grad" in reasons(backend)[0]


def test_an_inner_bias_that_trains_is_left_alone() -> None:
    model, backend = Chain(64, 256, 96), Packing()
    model.layers[0].bias.requires_grad_(True)
    torch.compile(model, backend=backend)(torch.randn(3, 64)).sum().backward()
    assert "layers.0.bias requires grad" in reasons(backend)[0]


def test_gradients_pass_through_a_product() -> None:
    model, x, backend = Chain(64, 256, 96), torch.randn(3, 64, requires_grad=True), Packing()
    (want,) = torch.autograd.grad(model(x).square().sum(), x)
    (found,) = torch.autograd.grad(torch.compile(model, backend=backend)(x).square().sum(), x)
    torch.testing.assert_close(found, want)
    assert reasons(backend) == [""]


def test_another_dtype() -> None:
    class Net(Chain):
        def forward(self, x: Tensor) -> Tensor:
            first, second = self.layers
            return F.linear(first(x).double(), second.weight, second.bias)

    model, backend = Net(64, 256, 96), Packing()
    model.layers[1].double()
    x = torch.randn(3, 64)
    close(torch.compile(model, backend=backend)(x).float(), model(x).float())
    assert not reasons(backend)


def test_without_the_pass() -> None:
    backend = Packing(passes={"without": ["fuse_low_rank"]})
    check(Chain(64, 256, 96), torch.randn(3, 64), backend)
    assert [node.shape for node in backend.compiler.report.nodes] == [(256, 64), (96, 256)]


@torch.no_grad()
def test_factors_and_biases_that_change() -> None:
    model, x, backend = Chain(64, 256, 96), torch.randn(3, 64), Packing()
    fast = check(model, x, backend)
    first, second = model.layers
    for change in (
        lambda: first.weight.mul_(3),
        lambda: second.weight[0].zero_(),
        lambda: first.bias.add_(1),
        lambda: second.bias.add_(1),
        lambda: setattr(first, "weight", nn.Parameter(torch.randn(256, 64), False)),
        lambda: model.load_state_dict(Chain(64, 256, 96).state_dict()),
    ):
        before = fast(x)
        change()
        assert not torch.allclose(fast(x), before)
        close(fast(x), model(x))
    assert backend.compiler.report.graphs == 1
    assert not backend.compiler.report.misfits


@torch.no_grad()
def test_through_inductor_with_any_m() -> None:
    model = Chain(64, 256, 96)
    fast = torch.compile(model, backend="sparse", dynamic=True, options={"tune": "off"})
    for rows in (2, 3, 70):
        x = torch.randn(rows, 64)
        close(fast(x), model(x))
    model.layers[0].weight.mul_(2)
    close(fast(x), model(x))


def test_a_gpu_has_the_dense_product() -> None:
    """No kernel there is for dense weights: Inductor gets it."""
    report = sc.explain(Chain(64, 256, 96), torch.randn(3, 64), target="sm_90", tune="off")
    (node,) = report.nodes
    assert node.expression == "product(96x256, 256x64), multiplied out"
    assert not node.packed
    assert "dense_0, dense_1" in report.after
