"""Results lie in memory as the model's own did: what reads them may have been traced with that."""

from __future__ import annotations

import pytest
import torch
from packing import Packing, close, sparse_
from torch import Tensor, nn

import sparsecompile as sc


class Windows(nn.Module):
    """Overlapping windows of two linears of one input, as long-document attention takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (sparse_(nn.Linear(32, 16)).requires_grad_(False) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(windows(linear(x)) for linear in (self.a, self.b))


class Residual(nn.Module):
    """A residual that is transposed comes first: so is the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = sparse_(nn.Linear(32, 32)).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return windows(x + self.inner(x))


def windows(y: Tensor) -> Tensor:
    """Two rows each, by the strides that `y` has."""
    first, second, _ = y.stride()
    size = (y.shape[0] - 1, y.shape[1], 2, y.shape[2])
    return y.as_strided(size, (first, second, first, 1))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("model", [Windows(), Residual()], ids=lambda m: type(m).__name__)
def test_strides_that_were_traced_are_those_of_the_results(model: nn.Module, dynamic: bool) -> None:
    backend = Packing()
    fast = torch.compile(model, backend=backend, dynamic=dynamic)
    with torch.no_grad():
        for shape in ((4, 3, 32), (7, 5, 32)):
            x = torch.randn(shape)
            for y, want in zip(fast(x), model(x), strict=True):
                close(y, want)
                assert y.stride() == want.stride()
    assert all(node.packed for node in backend.compiler.report.nodes)
    (graph, *_) = backend.compiler.report.graph_reports
    reasons = [r.reason for r in graph.rewrites if r.pass_name == "fuse_epilogue"]
    refused = "the result does not lie row by row, as that of the kernel would"
    assert reasons == ([refused] if isinstance(model, Residual) else [])


def test_merged_results_are_rows_that_may_be_viewed_and_written() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (sparse_(nn.Linear(32, 16)).requires_grad_(False) for _ in range(2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a, b = self.a(x), self.b(x)
            b.view(-1).mul_(2)
            return a.unsqueeze(0).view(-1), b

    model, backend, x = Two(), Packing(), torch.randn(3, 5, 32)
    with torch.no_grad():
        for y, want in zip(torch.compile(model, backend=backend)(x), model(x), strict=True):
            close(y, want)
            assert y.is_contiguous()
    assert all(node.merged_with for node in backend.compiler.report.nodes)


@pytest.mark.parametrize("name", ["bitmap", "n_m[2:4]", "block[1x16]", "csr"])
def test_a_weight_that_is_a_transposed_column(name: str) -> None:
    format = sc.default_registry().format(name)
    weight = torch.zeros(64, 1)
    weight[:2] = 1
    assert torch.equal(format.pack(weight.t()).unpack(), weight.t())
