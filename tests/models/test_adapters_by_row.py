"""Several adapters in one batch: each row, or each sequence, has its own beside a packed base."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from packing import Packing, sparse_
from torch import Tensor, nn

from sparsecompile.testing import assert_no_worse

ADAPTERS, RANK = 3, 4


class ByRow(nn.Module):
    """`base(x) + b[which] a[which] x`, for rows `[m, k]` and `which` `[m]`."""

    def __init__(self) -> None:
        super().__init__()
        self.base = sparse_(nn.Linear(64, 96))
        self.a = nn.Parameter(torch.randn(ADAPTERS, RANK, 64))
        self.b = nn.Parameter(torch.randn(ADAPTERS, 96, RANK))
        self.requires_grad_(False)

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        lowered = torch.bmm(self.a[which], x.unsqueeze(-1))
        return self.base(x) + torch.bmm(self.b[which], lowered).squeeze(-1)


class BySequence(ByRow):
    """The same of sequences `[batch, length, k]` and `which` `[batch]`."""

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        lowered = torch.bmm(x, self.a[which].mT)
        return self.base(x) + torch.bmm(lowered, self.b[which].mT) * 0.5


class Einsum(ByRow):
    """Of sequences, spelled by einsum."""

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        a, b = self.a.index_select(0, which), self.b.index_select(0, which)
        lowered = torch.einsum("bsk,brk->bsr", x, a)
        return self.base(x) + torch.einsum("bsr,bnr->bsn", lowered, b)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [ByRow, BySequence, Einsum])
def test_rows_choose_their_adapters(make: type[ByRow], dtype: torch.dtype) -> None:
    """Adapters are added by the base's kernel; another choice, or others, repack nothing."""
    torch._dynamo.reset()
    model, backend = make().to(dtype), Packing(tune="off")
    fast = torch.compile(model, backend=backend)
    x = torch.randn(5, 64) if make is ByRow else torch.randn(5, 3, 64)
    for which in ([0, 1, 2, 1, 0], [2, 2, 2, 2, 2]):
        args = (x.to(dtype), torch.tensor(which))
        exact = copy.deepcopy(model).double()(x.to(dtype).double(), args[1])
        assert_no_worse(fast(*args), model(*args), exact)
        model.a.mul_(-2)
    (node,) = backend.compiler.report.nodes
    assert (node.weight, node.format, node.epilogue) == ("base.weight", "n_m[2:4]/float", ("add",))
    assert "strips +add" in str(backend.compiler.report)


def test_of_peft_itself() -> None:
    """It splits a batch by the names of adapters, and adds to the rows of each."""
    peft: Any = pytest.importorskip("peft")
    torch._dynamo.reset()
    base = nn.Sequential(sparse_(nn.Linear(64, 96))).requires_grad_(False)
    config = peft.LoraConfig(r=4, target_modules=["0"], init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    model.add_adapter("other", config)
    model.eval()
    x, backend = torch.randn(4, 64), Packing(tune="off")
    fast = torch.compile(model, backend=backend)
    exact = copy.deepcopy(model).double()
    for names in (["default", "other", "default", "__base__"], ["other"] * 4):
        with torch.no_grad():
            found, eager = fast(x, adapter_names=names), model(x, adapter_names=names)
            assert_no_worse(found, eager, exact(x.double(), adapter_names=names))
    assert "base_model.model.0.base_layer.weight" in backend.packed
