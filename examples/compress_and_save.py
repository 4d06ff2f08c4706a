"""Compress a model, save it, load it where no dense copy ever exists, compile it.

Run it with `uv run examples/compress_and_save.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile


class Tagger(nn.Module):
    """A gated MLP between an embedding and a head that share one weight."""

    def __init__(self, tokens: int = 2048, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.gate = nn.Linear(width, 4 * width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[..., tokens]` for token numbers `[...]`."""
        x = self.embedding(tokens)
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))


@torch.no_grad()
def main() -> None:
    """Each step, and what it must not change."""
    torch.manual_seed(0)
    model, tokens = Tagger().eval(), torch.randint(2048, (1, 8))
    dense_bytes = sum(p.numel() * p.element_size() for p in model.parameters())

    # In place: every weight is pruned, rounded and packed, and the dense one is freed. Without
    # `prune` and `quantize` only zeros that are there already are left out, and nothing is lost.
    sparsecompile.compress(model, prune="2:4", quantize="int4")
    print(model.head.weight)
    assert model.head.weight is model.embedding.weight
    logits = model(tokens)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tagger.safetensors")
        sparsecompile.save(model, path)
        print(f"{dense_bytes:,} bytes dense, {path.stat().st_size:,} in the file")
        assert path.stat().st_size < dense_bytes / 7

        with torch.device("meta"):
            empty = Tagger().eval()
        loaded = sparsecompile.load(path, empty)
        assert torch.equal(loaded(tokens), logits)

        # The kernels' layouts take the place of what was loaded; eager calls read them too.
        fast = torch.compile(loaded, backend="sparse")
        torch.testing.assert_close(fast(tokens), logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(loaded(tokens), logits)
        report = sparsecompile.explain(loaded, tokens)
        print(report)
        assert all(node.packed for node in report.nodes)


if __name__ == "__main__":
    main()
