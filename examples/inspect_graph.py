"""Look at everything the compiler did: the graph before and after, every refusal, the sources.

Run it with `uv run examples/inspect_graph.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecompile as sc


class Gated(nn.Module):
    """The feed-forward block of a language model."""

    def __init__(self, width: int = 64, inner: int = 128) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x + down(silu(gate(x)) * up(x))`."""
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


def main() -> None:
    """Prune by request, explain, and write everything to a folder."""
    torch.manual_seed(0)
    model = Gated().eval()
    recipes = {"gate.*": "2:4", "up.*": "2:4", "down.*": "unstructured(0.8)"}
    with tempfile.TemporaryDirectory() as folder:
        # Unmeasured: so small a model would be faster dense, and there would be nothing to see.
        options = {"prune": recipes, "dump": folder, "tune": "off"}
        report = sc.explain(model, torch.randn(2, 64), **options)
        files = sorted(p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file())

    print(f"--- the graph as it came\n{report.before}\n--- and as it goes to Inductor\n")
    print(report.after)
    for name, text in report.sources.items():
        print(f"--- {name}, {len(text.splitlines())} lines, begins\n{text[:300]}...\n")
    print("--- what each format found in down.weight")
    (down,) = [node for node in report.nodes if node.weight == "down.weight"]
    for finding in down.findings:
        print(f"{finding.format:20} {finding.reason or f'{finding.nbytes} bytes'}")
    print(f'\n--- the report\n{report}\n--- options={{"dump": folder}} wrote')
    print("\n".join(map(str, files)))

    assert down.format == "bitmap/float"
    assert down.epilogue == ("add",)
    assert {node.merged_with for node in report.nodes} == {
        ("up.weight",),
        ("gate.weight",),
        (),
    }
    # Both linears and the gate between them are one call.
    assert report.after.count("sparsecompile.region") == 1


if __name__ == "__main__":
    main()
