"""What reads a weight beside its linear leaves it packed; what may change it leaves it dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from packing import Packing, sparse_
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc


@torch.library.custom_op("sparsecompile_tests::total", mutates_args=())
def total(weight: Tensor) -> Tensor:
    return weight.sum()


@total.register_fake
def _(weight: Tensor) -> Tensor:
    return weight.new_empty(())


@torch.library.custom_op("sparsecompile_tests::halve", mutates_args=("weight",))
def halve(weight: Tensor) -> None:
    weight.mul_(0.5)


class Uses(nn.Module):
    """A linear, and another use of its weight."""

    def __init__(self, use: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inner = sparse_(nn.Linear(32, 32, bias=False)).requires_grad_(False)
        self.use = use

    def forward(self, x: Tensor) -> Any:
        return self.inner(x), self.use(x, self.inner.weight)


READS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "einsum": lambda x, w: torch.einsum("bk,nk->nb", x, w),
    "double": lambda x, w: w.double(),
    "matmul": lambda x, w: w @ w,
    "method": lambda x, w: w.matmul(w),
    "norm": lambda x, w: torch.norm(w),
    "linalg": lambda x, w: torch.linalg.matrix_norm(w),
    "sum": lambda x, w: w.sum(),
    "where": lambda x, w: torch.where(x > 0, w, 1.0),
    "comparison": lambda x, w: w == 0,
    "condition": lambda x, w: (w > 0) & (w < 1),
    "keyword": lambda x, w: torch.add(input=x, other=w),
    "list": lambda x, w: torch.stack([x, w]),
    "normalize": lambda x, w: F.normalize(w),
    "cosine_similarity": lambda x, w: F.cosine_similarity(x, w),
    "mse_loss": lambda x, w: F.mse_loss(x, w),
    "softmax": lambda x, w: F.softmax(w, -1),
    "embedding": lambda x, w: F.embedding(torch.arange(3), w),
    "bilinear": lambda x, w: F.bilinear(x, x, w[None]),
    "attention": lambda x, w: F.scaled_dot_product_attention(x[None], w[None], w[None]),
    "overload": lambda x, w: torch.ops.aten.mul.Tensor(w, 2),
    "custom op": lambda x, w: total(w),
    "out of place": lambda x, w: F.relu(w, inplace=False),
    "sizes that depend on it": lambda x, w: x + w.count_nonzero(),
    "view": lambda x, w: w.view(-1).sum(),
    "views of views": lambda x, w: w.t()[1:].reshape(-1).unsqueeze(0) * 2,
    "parts": lambda x, w: sum(part.sum() for part in w.chunk(2)),
    "part": lambda x, w: torch.split(w, 8)[1].mean(),
    "slice": lambda x, w: x @ w[:, :4],
    "data": lambda x, w: w.data.sum(),
    "detach": lambda x, w: w.detach().abs(),
    "same dtype": lambda x, w: w.float().mean(),
    "alias that is returned": lambda x, w: w.view(-1),
    "write into what is computed of it": lambda x, w: (w * 2).add_(1),
    "write into a copy": lambda x, w: w.clone().mul_(2),
}


@pytest.mark.parametrize("name", READS)
def test_a_weight_that_is_only_read_is_packed(name: str) -> None:
    model, backend, x = Uses(READS[name]), Packing(), torch.randn(32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
    assert set(backend.packed) == {"inner.weight"}


WRITES: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "method": (lambda x, w: w.mul_(2), "mul_"),
    "function": (lambda x, w: torch.relu_(w), "relu_"),
    "inplace": (lambda x, w: F.relu(w, inplace=True), "relu"),
    "inplace by place": (lambda x, w: F.dropout(w, 0.5, True, True), "dropout"),
    "out": (lambda x, w: torch.add(x, x, out=w), "add"),
    "out of a library": (lambda x, w: torch.linalg.inv(x, out=w), "linalg_inv"),
    "overload": (lambda x, w: torch.ops.aten.add_.Tensor(w, 1), "add_"),
    "item": (lambda x, w: w.__setitem__(0, 1.0), "setitem"),
    "copy": (lambda x, w: w.copy_(x), "copy_"),
    "renormalised embedding": (lambda x, w: F.embedding(torch.arange(3), w, None, 1.0), "embed"),
    "statistics": (lambda x, w: F.batch_norm(x, w[0], w[1], training=True), "batch_norm"),
    "custom op": (lambda x, w: halve(w), "halve"),
    "view": (lambda x, w: w.view(-1).mul_(2), "mul_"),
    "transposed": (lambda x, w: w.t().fill_(1), "fill_"),
    "slice": (lambda x, w: w[:2].zero_(), "zero_"),
    "part": (lambda x, w: w.chunk(2)[0].zero_(), "zero_"),
    "unbound": (lambda x, w: w.unbind(0)[1].zero_(), "zero_"),
    "same dtype": (lambda x, w: w.float().mul_(2), "mul_"),
    "detached": (lambda x, w: w.detach().mul_(2), "mul_"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_weight_that_is_written_stays_dense_and_the_report_says_by_what(name: str) -> None:
    use, target = WRITES[name]
    model, twin, backend = Uses(use), Uses(use), Packing()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(32, 32)
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        for _ in range(2):
            found, expected = fast(x)[0], twin(x)[0]
            if "dropout" not in target:
                torch.testing.assert_close(found, expected)
    reason = backend.reason("inner.weight")
    assert "the weight is also used by " in reason
    assert f"{target}" in reason
    assert "which may change it" in reason


UNKNOWN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "checkpoint": lambda x, w: torch.utils.checkpoint.checkpoint(
        lambda y: y @ w, x, use_reentrant=False
    ),
    "cond": lambda x, w: torch.cond(x.sum() > 0, lambda: w * 2, lambda: w + 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_looked_into_may_change_it(name: str) -> None:
    model, backend, x = Uses(UNKNOWN[name]), Packing(), torch.randn(32, 32, requires_grad=True)
    torch.testing.assert_close(torch.compile(model, backend=backend)(x), model(x))
    assert "which may change it" in backend.reason("inner.weight")


def test_looking_leaves_what_dynamo_knows_as_it_was() -> None:
    """A size that depends on data is a new symbol each time that it is run on fake tensors."""
    model = Uses(lambda x, w: w.masked_select(w > 0))
    x = torch.randn(4, 32)
    with torch.no_grad(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        fast = torch.compile(model, backend="sparse", fullgraph=True)
        torch.testing.assert_close(fast(x), model(x))
        report = sc.explain(model, x)
    assert [node.packed for node in report.nodes] == [True]
