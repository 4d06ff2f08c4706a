"""`dense` in C++."""

from __future__ import annotations

from sparsecompile.codegen.cpp.fragment import CppFragment
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

TEXT = """\
// dense: the slot of a column is row * k + column.

namespace {

constexpr int column_padding = 0;
constexpr int slots_per_vector = native_floats;
constexpr bool vectors_are_cheap = true;

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return row * w.k; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t&, int64_t from, int64_t to,
                         Visit&& visit) {
  const int64_t first = row * w.k;
  int64_t column = from;
  for (; column + 4 <= to; column += 4) {
    visit(lane<0>(), column, first + column);
    visit(lane<1>(), column + 1, first + column + 1);
    visit(lane<2>(), column + 2, first + column + 2);
    visit(lane<3>(), column + 3, first + column + 3);
  }
  for (; column < to; ++column) visit(lane<0>(), column, first + column);
}

template <class VisitVector, class Visit>
SC_INLINE void visit_row_vectors(const Weight& w, int64_t row, VisitVector&& visit_vector,
                                 Visit&& visit) {
  constexpr int width = slots_per_vector;
  const int64_t first = row * w.k;
  int64_t column = 0;
  const auto step = [&](auto chain, int64_t at) SC_INLINED {
    visit_vector(chain, first + at,
                 [&](const float* x) SC_INLINED { return load<Floats<width>>(x + at); },
                 [&](int i) SC_INLINED { return at + i; });
  };
  for (; column + 4 * width <= w.k; column += 4 * width) {
    step(lane<0>(), column);
    step(lane<1>(), column + width);
    step(lane<2>(), column + 2 * width);
    step(lane<3>(), column + 3 * width);
  }
  for (; column + width <= w.k; column += width) step(lane<0>(), column);
  for (; column < w.k; ++column) visit(lane<0>(), column, first + column);
}

}  // namespace
"""


class CppDense(CppFragment):
    """No index: columns one after the other."""

    family = "dense"

    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """No tensors."""
        return {}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Visits of consecutive columns."""
        return TEXT


COMPONENTS = (CppDense(),)
