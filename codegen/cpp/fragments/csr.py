"""`csr` in C++."""

from __future__ import annotations

from sparsecompile.codegen.cpp.fragment import CppFragment
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

TEXT = """\
// csr: the slots of a row are crow[row] .. crow[row + 1], their columns col[slot], ascending.

namespace {

constexpr int column_padding = 0;
constexpr int slots_per_vector = native_floats;
constexpr bool vectors_are_cheap = false;

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return w.crow[row]; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t& cursor, int64_t, int64_t to,
                         Visit&& visit) {
  const int64_t end = w.crow[row + 1];
  int64_t slot = cursor;
  for (; slot + 4 <= end && w.col[slot + 3] < to; slot += 4) {
    visit(lane<0>(), w.col[slot], slot);
    visit(lane<1>(), w.col[slot + 1], slot + 1);
    visit(lane<2>(), w.col[slot + 2], slot + 2);
    visit(lane<3>(), w.col[slot + 3], slot + 3);
  }
  for (; slot < end && w.col[slot] < to; ++slot) visit(lane<0>(), w.col[slot], slot);
  cursor = slot;
}

template <class VisitVector, class Visit>
SC_INLINE void visit_row_vectors(const Weight& w, int64_t row, VisitVector&& visit_vector,
                                 Visit&& visit) {
  constexpr int width = slots_per_vector;
  const int64_t end = w.crow[row + 1];
  int64_t slot = w.crow[row];
  const auto step = [&](auto chain, int64_t at) SC_INLINED {
    visit_vector(chain, at,
                 [&](const float* x) SC_INLINED { return gather<width>(x, w.col + at); },
                 [&](int i) SC_INLINED { return int64_t{w.col[at + i]}; });
  };
  for (; slot + 4 * width <= end; slot += 4 * width) {
    step(lane<0>(), slot);
    step(lane<1>(), slot + width);
    step(lane<2>(), slot + 2 * width);
    step(lane<3>(), slot + 3 * width);
  }
  for (; slot + width <= end; slot += width) step(lane<0>(), slot);
  for (; slot < end; ++slot) visit(lane<0>(), w.col[slot], slot);
}

}  // namespace
"""


class CppCSR(CppFragment):
    """One column index a slot."""

    family = "csr"

    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """`crow` and `col`."""
        return {"crow": "int32_t", "col": "int32_t"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Visits of the columns in `col`."""
        return TEXT


COMPONENTS = (CppCSR(),)
