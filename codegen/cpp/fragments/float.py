"""`float` values in C++."""

from __future__ import annotations

from sparsecompile.codegen.cpp.fragment import ELEMENTS, CppFragment
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

TEXT = """\
// float: values as they are.

namespace {

SC_INLINE float decode(const Weight& w, int64_t, int64_t, int64_t slot) {
  return to_float(w.values[slot]);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t, int64_t slot, Column&&) {
  prefetch(w.values + slot);
  return load_floats<count>(w.values + slot);
}

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  if constexpr (sizeof(Element) == 4) return load<uint32_t>(w.values + slot);
  return load<uint16_t>(w.values + slot);
}

}  // namespace
"""


class CppFloat(CppFragment):
    """`values[slot]`, widened."""

    family = "float"

    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """`values` in the spec's dtype."""
        return {"values": ELEMENTS[spec.dtype]}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`decode` and `decode_vector`."""
        return TEXT


COMPONENTS = (CppFloat(),)
