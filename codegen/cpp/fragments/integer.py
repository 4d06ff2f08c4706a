"""Integers in C++."""

from __future__ import annotations

from sparsecompile.codegen.cpp.fragments.coded import CppCoded
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

ROW_SCALES = """\
// {codec}: an integer of {bits} bits times the scale of its row.

namespace {{

SC_INLINE float scale_of(const Weight& w, int64_t row, int64_t) {{
  return to_float(w.scales[row]);
}}

template <int count, class Column>
SC_INLINE Floats<count> scales_of(const Weight& w, int64_t row, Column&&) {{
  return Floats<count>{{}} + scale_of(w, row, 0);
}}
"""

GROUP_SCALES = """\
// {codec}: an integer of {bits} bits times the scale of its group of {group} columns.

namespace {{

constexpr int64_t scale_group = {group};

// Columns of the padding have the last group's.
SC_INLINE float scale_of(const Weight& w, int64_t row, int64_t column) {{
  const int64_t groups = ceil_div(w.k, scale_group), group = column / scale_group;
  return to_float(w.scales[row * groups + (group < groups ? group : groups - 1)]);
}}

// Columns ascend, so that where the ends share a group all of them do.
template <int count, class Column>
SC_INLINE Floats<count> scales_of(const Weight& w, int64_t row, Column&& column) {{
  const int64_t first = column(0), last = column(count - 1);
  if (first / scale_group == last / scale_group)
    return Floats<count>{{}} + scale_of(w, row, first);
  Floats<count> scales{{}};
  for (int i = 0; i < count; ++i) scales[i] = scale_of(w, row, column(i));
  return scales;
}}
"""

DECODE = """
SC_INLINE float decode(const Weight& w, int64_t row, int64_t column, int64_t slot) {
  return static_cast<float>(integer_at(w, slot)) * scale_of(w, row, column);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t row, int64_t slot, Column&& column) {
  return integers_at<count>(w, slot) * scales_of<count>(w, row, column);
}

}  // namespace
"""

BYTES = """
SC_INLINE int integer_at(const Weight& w, int64_t slot) { return w.values[slot]; }

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  return static_cast<uint8_t>(w.values[slot]) ^ 128u;
}

template <int count>
SC_INLINE Floats<count> integers_at(const Weight& w, int64_t slot) {
  prefetch(w.values + slot);
  return __builtin_convertvector(load<Vector<int8_t, count>>(w.values + slot), Floats<count>);
}
"""

NIBBLES = """
// Two slots a byte, the first in the lower half, as integer + 8.
SC_INLINE int integer_at(const Weight& w, int64_t slot) {
  return (w.values[slot / 2] >> (slot % 2 * 4) & 15) - 8;
}

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  return w.values[slot / 2] >> (slot % 2 * 4) & 15;
}

// Eight slots from `slot`, four bits each, the first lowest. An odd slot begins in half a byte.
SC_INLINE int32_t eight_at(const Weight& w, int64_t slot) {
  const uint8_t* from = w.values + slot / 2;
  const uint32_t word = load<uint32_t>(from);
  const uint32_t odd = word >> 4 | static_cast<uint32_t>(from[slot % 2 * 4]) << 28;
  return static_cast<int32_t>(slot % 2 ? odd : word);
}

template <int count>
SC_INLINE Floats<count> integers_at(const Weight& w, int64_t slot) {
  prefetch(w.values + slot / 2);
  const Ints<count> place = iota<int32_t, count>();
  Ints<count> word{};
  if constexpr (count == 16) {
    word = place < 8 ? word + eight_at(w, slot) : word + eight_at(w, slot + 8);
  } else if constexpr (count == 8) {
    word += eight_at(w, slot);
  } else {
    static_assert(count < 8, "at most sixteen slots");
    Floats<count> few{};
    for (int i = 0; i < count; ++i) few[i] = static_cast<float>(integer_at(w, slot + i));
    return few;
  }
  return __builtin_convertvector((word >> (place % 8 * 4) & 15) - 8, Floats<count>);
}
"""


TEXTS = {8: BYTES, 4: NIBBLES}
"""Of widths whose integers are read faster than codes of any width, if scales are all they have."""


class CppInteger(CppCoded):
    """Integers and their scales, multiplied in float32."""

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`code`, `decode` and `decode_vector`."""
        coding = spec.coding
        if not coding.is_scaled or coding.bits not in TEXTS:
            return super().render(part, spec)
        scales = GROUP_SCALES if coding.group else ROW_SCALES
        head = scales.format(codec=part, bits=coding.bits, group=coding.group)
        return head + TEXTS[coding.bits] + DECODE


FAMILIES = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "ternary")
COMPONENTS = tuple(map(CppInteger, FAMILIES))
