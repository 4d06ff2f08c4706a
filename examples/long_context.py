"""A stack of Gemma 3's kind over 8192 tokens: most layers look back over a window alone.

No weight holds a zero, and nothing is asked for: the windows are found in the model's own masks.
Run it with `uv run examples/long_context.py`.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile

TOKENS, WINDOW = 8192, 256


class Layer(nn.Module):
    """Attention with grouped keys and values, and a gated feed-forward."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * kv_heads * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[batch, tokens, width]`, `mask` `[1, 1, tokens, tokens]` bool."""
        h = self.norm(x)
        q = self.q(h).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        k, v = self.kv(h).unflatten(-1, (2 * self.kv_heads, self.size)).transpose(1, 2).chunk(2, 1)
        groups = self.heads // self.kv_heads
        k, v = (heads.repeat_interleave(groups, dim=1) for heads in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        h = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Stack(nn.Module):
    """Three layers with a window, then one that sees everything before it."""

    def __init__(self, width: int = 256, heads: int = 4, kv_heads: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, kv_heads) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, tokens, width]`."""
        position = torch.arange(x.shape[1])
        query, key = position[None, None, :, None], position[None, None, None, :]
        causal = key <= query
        window = causal & (key > query - WINDOW)
        for i, layer in enumerate(self.layers):
            x = layer(x, causal if i == 3 else window)
        return x


def seconds(model: nn.Module, x: Tensor) -> float:
    """Of the second call; the first one compiles."""
    model(x)
    start = time.perf_counter()
    model(x)
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    """The report, then the times."""
    torch.manual_seed(0)
    model, x = Stack().eval(), torch.randn(1, TOKENS, 256)
    fast = torch.compile(model, backend="sparse")
    print(sparsecompile.explain(model, x))

    dense, sparse = seconds(torch.compile(model), x), seconds(fast, x)
    print(f"\n{TOKENS} tokens: {dense:.2f} s with Inductor, {sparse:.2f} s with the sparse backend")
    error = float((fast(x) - model(x)).abs().max())
    print(f"largest difference from the model: {error:.1e}")
    assert error < 1e-4


if __name__ == "__main__":
    main()
