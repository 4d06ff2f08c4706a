"""Linears one after the other, with what models have between them."""

from __future__ import annotations

import torch
from packing import sparse_
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, INNER = 64, 96


class RMSNorm(nn.Module):
    """As Llama spells it, and Gemma, with one more than its weight."""

    def __init__(self, one: float = 0.0) -> None:
        super().__init__()
        self.weight, self.one = nn.Parameter(torch.rand(WIDTH)), one

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (self.one + self.weight) * wide.to(x.dtype)


class Block(nn.Module):
    """`o`, `up` and `down`; others say what stands between them."""

    def __init__(self, norm: nn.Module, *, bias: bool = False, gates: bool = False) -> None:
        super().__init__()
        self.o = sparse_(nn.Linear(WIDTH, WIDTH, bias=bias))
        self.up = sparse_(nn.Linear(WIDTH, INNER, bias=bias))
        self.gate = sparse_(nn.Linear(WIDTH, INNER, bias=bias)) if gates else None
        self.down = sparse_(nn.Linear(INNER, WIDTH, bias=bias))
        self.next = sparse_(nn.Linear(WIDTH, 2 * WIDTH, bias=bias))
        self.norm, self.last = norm, RMSNorm()


class Llama(Block):
    """A gated MLP between norms; what comes after it reads the residual and the last linear."""

    def __init__(self) -> None:
        super().__init__(RMSNorm(), gates=True)

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        assert self.gate is not None
        h = residual + self.o(x)
        y = self.norm(h)
        h = h + self.down(F.silu(self.gate(y)) * self.up(y))
        return h, self.next(self.last(h))


class GPT2(Block):
    """LayerNorm, biases, and gelu by tanh."""

    def __init__(self) -> None:
        norm = nn.LayerNorm(WIDTH)
        nn.init.uniform_(norm.bias)
        super().__init__(norm, bias=True)

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        h = self.o(x) + residual
        h = h + self.down(F.gelu(self.up(self.norm(h)), approximate="tanh"))
        return h, self.next(self.last(h))


class Gemma(Block):
    """A norm before and after, and residuals that are no linear's."""

    def __init__(self) -> None:
        super().__init__(RMSNorm(1.0))

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        h = residual + self.norm(self.o(x))
        h = h + self.norm(self.down(torch.tanh(self.up(self.last(h)) / 30.0) * 30.0))
        return h, self.next(-h)


class BERT(Block):
    """Norms behind residuals: what is returned is a norm's."""

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm(WIDTH), bias=True)

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(self.o(x) + residual)
        h = self.norm(h + self.down(F.gelu(self.up(h))))
        return h, self.next(h)


class Parts(Block):
    """Halves of one linear, softmax by hand, a squared relu and a slice of all rows."""

    def __init__(self) -> None:
        super().__init__(RMSNorm())

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.next(self.o(x)[..., :].reshape(x.shape)).chunk(2, dim=-1)
        first = torch.exp(first - first.amax(-1, keepdim=True))
        first = first / first.sum(-1, keepdim=True)
        h = self.o(F.rms_norm(torch.sigmoid(second) * first, (WIDTH,), eps=1e-3))
        return h, self.down(torch.square(F.relu(self.up(h))) - 1)


BLOCKS = (Llama, GPT2, Gemma, BERT, Parts)
