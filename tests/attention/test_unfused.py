"""Attention that no pattern takes has a row with what stands in the way, other softmaxes none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc

Q, K, V = (torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))


def reasons(run: Callable[..., Any], *args: Any) -> list[str]:
    """Of all attentions in the report, which are left to torch."""
    with torch.no_grad():
        nodes = [n for n in sc.explain(run, *args).nodes if n.reader == "attention"]
    assert not any(node.packed for node in nodes)
    return [node.reason for node in nodes]


def sinks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As GPT-OSS has them."""
    sinks = q[..., :1]
    scores = torch.cat([q @ k.mT, sinks], -1)
    weights = F.softmax(scores - scores.max(-1, keepdim=True).values, -1)[..., :-1]
    return torch.matmul(weights.to(v.dtype), v)


def equations(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)
    return torch.einsum("bhqk,bhkd->bhqd", weights, v)


def three_dimensions(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=2), v)


def with_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As Bloom adds its biases."""
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scores = q[:, :, :8].baddbmm(batch1=q, batch2=k.mT, beta=1.0, alpha=0.25)
    return torch.bmm(F.softmax(scores, -1), v)


def pieces(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As Longformer puts its scores together."""
    scores = q.new_zeros(2, 4, 8, 8)
    scores[:, :, :4] = q[:, :, :4] @ k.mT
    scores[:, :, 4:] = q[:, :, 4:] @ k.mT
    return F.softmax(scores.transpose(0, 1), -1).transpose(0, 1) @ v


def dropped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.dropout(F.softmax(q @ k.mT, -1), 0.5) @ v


def cut(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = F.softmax(q @ k.mT, -1)
    return weights[..., :4] @ v[:, :, :4] + weights[..., 4:] @ v[:, :, 4:]


def on_the_right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return v.mT @ F.softmax(q @ k.mT, -1)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (
            sinks,
            "its scores are concatenated with sinks before the softmax; its weights go through "
            "getitem, to",
        ),
        (
            equations,
            "its products are by einsum bhqd,bhkd->bhqk, einsum bhqk,bhkd->bhqd, not matmul",
        ),
        (three_dimensions, "its products are by bmm, not matmul"),
        (with_bias, "its products are by baddbmm, bmm, not matmul"),
        (
            pieces,
            "its scores are written into scores piece by piece; its weights go through transpose",
        ),
        (dropped, "its weights go through dropout"),
        (cut, "its weights go through getitem"),
        (on_the_right, "matmul_1 has its weights on the right"),
    ],
)
def test_what_stands_in_the_way(run: Callable[..., Tensor], why: str) -> None:
    assert reasons(run, Q, K, V) == [why]


class Router(nn.Module):
    """The experts of a token, by the weights of a softmax, and all of them by a product."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(2, 16, 4))
        self.experts = nn.Parameter(torch.randn(4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(torch.bmm(x, self.gate), -1)
        best = weights.topk(2).indices
        kept = weights * F.one_hot(best, 4).sum(-2)
        return torch.einsum("bse,bsd,edf->bsf", kept, x, self.experts)


class Classifier(nn.Module):
    """A softmax of what a product of activations led to, through a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.table = nn.Linear(8, 5), nn.Parameter(torch.randn(2, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(F.softmax(self.head(x @ x.mT), -1), self.table)


def compared(x: Tensor) -> Tensor:
    """As CLIP compares pictures and texts."""
    return F.softmax(x @ x.mT, -1)


@pytest.mark.parametrize("run", [Router(), Classifier(), compared])
def test_softmaxes_that_are_no_attention(run: Callable[..., Tensor]) -> None:
    assert reasons(run, Q[:, 0]) == []


def test_what_is_asked_of_them_is_an_error_under_strict() -> None:
    with torch.no_grad(), pytest.raises(sc.RejectedError, match="are concatenated with sinks"):
        sc.explain(sinks, Q, K, V, attention="window(4)", strict=True)
