"""A structure of your own: weights of which whole rows were pruned.

A structure says where the kept values are, and a fragment how C++ reads it; the generic template
makes kernels of the two for every codec, dtype, epilogue and batch size. Run it with
`uv run examples/write_a_structure.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor, nn

import sparsecompile as sc
from sparsecompile.codegen.cpp.fragment import CppFragment
from sparsecompile.formats.symbols import n


@dataclass(frozen=True)
class Rows(sc.Structure):
    """Kept rows one after the other: `dense[row] = values.view(-1, k)[place[row]]`.

    Index tensors: `place` `[n]` int32, the place of a row among the kept ones, -1 if it is zero.
    """

    family = "rows"

    def find(self, weight: sc.Occupancy) -> int:
        """All values of the rows that are not zero; refuse when there are none to leave out."""
        kept = int(weight.mask.any(1).sum())
        if kept == weight.shape[0]:
            raise sc.Reject(f"none of the {kept} rows is zero")
        return kept * weight.shape[1]

    def encode(self, weight: sc.Occupancy) -> dict[str, Tensor]:
        """`place`."""
        kept = weight.mask.any(1)
        place = torch.where(kept, kept.cumsum(0) - 1, -1)
        return {"place": place.to(torch.int32)}

    def positions(self, index: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """`row * k + column` for every value of every kept row."""
        rows = (index["place"] >= 0).nonzero()
        return (rows * shape[1] + torch.arange(shape[1])).reshape(-1)

    def index_bits(self) -> sympy.Expr:
        """An int32 a row."""
        return 32 * n


class CppRows(CppFragment):
    """How C++ visits a row: all of its columns, or none."""

    family = "rows"

    def fields(self, part: sc.Structure | sc.Codec, spec: sc.KernelSpec) -> dict[str, str]:
        """`place`."""
        return {"place": "int32_t"}

    def render(self, part: sc.Structure | sc.Codec, spec: sc.KernelSpec) -> str:
        """What `CppFragment` asks of a structure, one slot at a time."""
        return """\
// rows: the slots of a kept row are place[row] * k .. place[row] * k + k, those of others none.

namespace {

constexpr int column_padding = 0;
constexpr int slots_per_vector = 1;
constexpr bool vectors_are_cheap = false;

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return w.place[row] * w.k; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t&, int64_t from, int64_t to,
                         Visit&& visit) {
  if (w.place[row] < 0) return;
  for (int64_t c = from; c < to; ++c) visit(lane<0>(), c, w.place[row] * w.k + c);
}

}  // namespace
"""


def main() -> None:
    """Register both, prune rows, compile, compare, look."""
    # Unmeasured: so small a linear would be faster dense, and there would be nothing to see.
    backend = sc.Compiler(tune="off")
    backend.register(Rows(), CppRows())  # or an entry point in the group "sparsecompile.plugins"

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64)).eval()
    with torch.no_grad():
        model[0].weight[torch.rand(128) < 0.7] = 0
    fast = torch.compile(model, backend=backend)
    with torch.no_grad():
        for m in (1, 7, 100):
            x = torch.randn(m, 256)
            torch.testing.assert_close(fast(x), model(x))

    first, second = backend.report.nodes
    for finding in first.findings:
        print(f"{finding.format:20} {finding.reason or f'{finding.nbytes} bytes'}")
    print(f"\n{backend.report}")
    assert first.format == "rows/float"
    assert second.reason == "the weight holds no zeros"


if __name__ == "__main__":
    main()
