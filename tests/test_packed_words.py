"""Weights that graphs unpack from words of integers, as other libraries' modules do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packing import Packing
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecompile.graph.weight_view import WeightView
from sparsecompile.testing import assert_no_worse

N, K, GROUP = 48, 128, 32
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _packed(codes: Tensor) -> Tensor:
    """`[rows, columns]` of 4 bits as int32 `[rows, columns / 8]`, the first in the lowest bits."""
    words = codes.view(codes.shape[0], -1, 8).long() << torch.arange(0, 32, 4)
    return words.sum(-1).to(torch.int32)


class Linear(nn.Module):
    """What a library keeps of a linear, and how it computes the weight `[N, K]` of it."""

    names: str

    def __init__(self) -> None:
        super().__init__()
        self.codes = torch.randint(0, 16, (N, K))
        self.zero_points = torch.randint(1, 16, (N, K // GROUP))
        scales = (torch.rand(N, K // GROUP) + 0.5).half().float()
        self.keep(scales)
        wide = self.codes - self.zero_points.repeat_interleave(GROUP, 1)
        self.expected = wide * scales.repeat_interleave(GROUP, 1)
        del self.codes, self.zero_points

    def keep(self, scales: Tensor) -> None:
        raise NotImplementedError

    def weight(self) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight())


class GPTQ(Linear):
    """Words along `k`, zero points less one, a group for every column by `g_idx`."""

    names = "scales x g_idx x qweight x shifts x qzeros"

    def keep(self, scales: Tensor) -> None:
        self.register_buffer("qweight", _packed(self.codes).t().contiguous())
        self.register_buffer("qzeros", _packed((self.zero_points - 1).t().contiguous()))
        self.register_buffer("scales", scales.t().contiguous())
        self.register_buffer("g_idx", torch.arange(K, dtype=torch.int32) // GROUP)
        self.register_buffer("shifts", torch.arange(0, 32, 4, dtype=torch.int32)[None])

    def weight(self) -> Tensor:
        zeros = torch.bitwise_right_shift(
            torch.unsqueeze(self.qzeros, 2).expand(-1, -1, 8), self.shifts.unsqueeze(0)
        ).to(torch.int8)
        zeros = (torch.bitwise_and(zeros, 15) + 1).reshape(self.scales.shape)
        codes = torch.bitwise_right_shift(
            torch.unsqueeze(self.qweight, 1).expand(-1, 8, -1), self.shifts.unsqueeze(-1)
        ).to(torch.int8)
        codes = torch.bitwise_and(codes, 15).reshape(K, N)
        groups = self.g_idx.long()
        return self.scales[groups] * (codes - zeros[groups])

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight())


class AWQ(Linear):
    """Words along `n`, in an order of their own."""

    names = "qweight x qzeros x scales"

    def keep(self, scales: Tensor) -> None:
        def words(codes: Tensor) -> Tensor:
            order = torch.tensor(_AWQ_ORDER).argsort().argsort()
            shuffled = codes.t().reshape(-1, N // 8, 8)[..., order.argsort()]
            return _packed(shuffled.reshape(-1, N))

        self.register_buffer("qweight", words(self.codes))
        self.register_buffer("qzeros", words(self.zero_points))
        self.register_buffer("scales", scales.t().contiguous())

    def weight(self) -> Tensor:
        def unpack(words: Tensor) -> Tensor:
            shifts = torch.arange(0, 32, 4, device=words.device)
            codes = torch.bitwise_right_shift(words[:, :, None], shifts[None, None, :])
            codes = codes.to(torch.int8).view(words.shape[0], -1)
            order = torch.arange(N, dtype=torch.int32, device=words.device).view(-1, 8)
            return codes[:, order[:, [0, 2, 4, 6, 1, 3, 5, 7]].view(-1)] & 15

        scales = self.scales.repeat_interleave(GROUP, dim=0)
        zeros = unpack(self.qzeros).repeat_interleave(GROUP, dim=0)
        return (unpack(self.qweight) - zeros) * scales

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight())


class Bytes(Linear):
    """Two in a byte, shifted by 8: `pack-quantized` of compressed-tensors."""

    names = "words x zeros x scales"

    def keep(self, scales: Tensor) -> None:
        self.register_buffer("words", _packed(self.codes))
        self.register_buffer("zeros", (self.zero_points - 8).to(torch.int8)[..., None])
        self.register_buffer("scales", scales[..., None])

    def weight(self) -> Tensor:
        halves = self.words.contiguous().view(torch.uint8)
        codes = torch.stack((halves & 0xF, halves >> 4), dim=-1)
        codes = codes.view(torch.int8).view(N, -1)[:, :K] - 8
        grouped = codes.view(N, K // GROUP, GROUP).to(torch.float32)
        return ((grouped - self.zeros.to(torch.float32)) * self.scales).flatten(1)


@pytest.mark.parametrize("make", [GPTQ, AWQ, Bytes])
@torch.no_grad()
def test_their_integers_are_packed_as_they_are(make: Callable[[], Linear]) -> None:
    torch.manual_seed(0)
    model, x, packing = make(), torch.randn(3, K), Packing()
    fast = torch.compile(model, backend=packing, fullgraph=True)
    exact = x.double() @ model.expected.double().t()
    assert_no_worse(fast(x), model(x), exact)
    (node,) = packing.compiler.report.nodes
    assert node.format == f"dense/int4[group={GROUP},scales=float16,zero_points,lossless]"
    assert not node.lossy
    assert node.weight == model.names
    model.scales.mul_(2)
    assert_no_worse(fast(x), model(x), exact * 2)


class Counted(nn.Module):
    """A linear of numbers that the graph makes of nothing, beside indices that are as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-7, 8, (K, N)).float())

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(K).view(2, -1).flatten()
        return F.linear(x, torch.arange(3.0 * K).view(3, K)) + x @ self.values[places][:, :3]


@torch.no_grad()
def test_a_weight_is_of_parameters() -> None:
    model, x, packing = Counted(), torch.randn(3, K), Packing()
    torch.testing.assert_close(torch.compile(model, backend=packing)(x), model(x))
    (node,) = [node for node in packing.compiler.report.nodes if not node.packed]
    assert node.reason == "the weight is computed in the graph by view (view_1), of no parameter"
    assert packing.packed == ["values"]


class Beside(nn.Module):
    """Two linears of one input, the words of the later one unpacked behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: Any = nn.ModuleList([AWQ(), AWQ()])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], -1)


@torch.no_grad()
def test_linears_of_one_input_are_merged() -> None:
    torch.manual_seed(0)
    model, x, packing = Beside(), torch.randn(3, K), Packing()
    exact = x.double() @ torch.cat([part.expected for part in model.parts]).double().t()
    assert_no_worse(torch.compile(model, backend=packing)(x), model(x), exact)
    (graph,) = packing.compiler.report.graph_reports
    assert [r.reason for r in graph.rewrites if r.pass_name == "merge_linears"] == [""]


def test_what_takes_thousands_of_steps_or_shares_them_is_looked_at_once() -> None:
    weight = nn.Parameter(torch.randn(N, K), requires_grad=False)
    graph = torch.fx.Graph()
    of_weight, of_input = graph.placeholder("weight"), graph.placeholder("x")
    for _ in range(2000):
        of_weight, of_input = (
            graph.call_function(torch.add, (graph.call_function(torch.mul, (node, 2)), node))
            for node in (of_weight, of_input)
        )
    graph.output((of_weight, of_input))
    module = torch.fx.GraphModule(nn.Module(), graph)
    view = WeightView(module, [weight, torch.randn(N, K)], grad=False)
    *_, output = module.graph.nodes
    of_weight, of_input = output.args[0]
    assert view.is_weight(of_weight)
    assert view.names(of_weight) == "weight"
    assert not view.is_weight(of_input)
