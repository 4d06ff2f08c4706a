"""Codes in C++: integers, places in tables, floats of 8 bits, and what belongs to their groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

from sparsecompile.codegen.cpp.fragment import ELEMENTS, CppFragment
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.coding import Coding
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec

HEAD = """\
// {codec}: codes of {bits} bits, one after the other.

namespace {{

constexpr int code_width = {bits};
"""

BYTES = """
SC_INLINE uint32_t code(const Weight& w, int64_t slot) {{
  return static_cast<uint8_t>(w.values[slot]){signed};
}}

template <int count>
SC_INLINE Ints<count> codes_at(const Weight& w, int64_t slot) {{
  prefetch(w.values + slot);
  const auto bytes = load<Vector<uint8_t, count>>(w.values + slot);
  return __builtin_convertvector(bytes, Ints<count>){signed};
}}
"""

STREAM = """
SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  const int64_t bit = slot * code_width;
  const uint8_t *first = w.values + bit / 8, *last = w.values + (bit + code_width - 1) / 8;
  return (first[0] | last[0] << 8) >> bit % 8 & ((1 << code_width) - 1);
}

// Eight slots from `slot`, the first lowest, from as many bytes as one has bits, and one more where
// they begin inside of one.
SC_INLINE uint64_t eight_codes_at(const Weight& w, int64_t slot) {
  const int64_t bit = slot * code_width;
  const uint8_t* from = w.values + bit / 8;
  const int begin = static_cast<int>(bit % 8);
  uint64_t bits = begin ? static_cast<uint64_t>(from[code_width]) << 8 * code_width : 0;
  std::memcpy(&bits, from, code_width);
  return bits >> begin;
}

template <int count>
SC_INLINE Ints<count> codes_at(const Weight& w, int64_t slot) {
  prefetch(w.values + slot * code_width / 8);
  Ints<count> codes{};
  if constexpr (count % 8 == 0) {
    for (int i = 0; i < count; i += 8) {
      const auto shifts = iota<uint64_t, 8>() * code_width;
      const auto eight = (Vector<uint64_t, 8>{} + eight_codes_at(w, slot + i)) >> shifts;
      const auto low = __builtin_convertvector(eight & ((1 << code_width) - 1), Ints<8>);
      std::memcpy(reinterpret_cast<char*>(&codes) + i * sizeof(int32_t), &low, sizeof low);
    }
  } else {
    for (int i = 0; i < count; ++i) codes[i] = static_cast<int32_t>(code(w, slot + i));
  }
  return codes;
}
"""

GROUPS = """
// Which group of a row's columns a column is in; those of the padding are in the last one.
SC_INLINE int64_t group_of(const Weight& w, int64_t row, int64_t column) {{
  constexpr int64_t group_size = {group};
  const int64_t groups = ceil_div(w.k, group_size), group = column / group_size;
  return row * groups + (group < groups ? group : groups - 1);
}}
"""
ROWS = """
SC_INLINE int64_t group_of(const Weight&, int64_t row, int64_t) { return row; }
"""

DECODE = """
// Values of codes, or of a vector of them that are in the same group.
template <class Values, class Codes>
SC_INLINE Values values_of(const Weight& w, Codes codes, int64_t row, int64_t group) {
  return rounded(scaled(w, numbers_of<Values>(w, codes, row), group));
}

SC_INLINE float decode(const Weight& w, int64_t row, int64_t column, int64_t slot) {
  const auto codes = static_cast<int32_t>(code(w, slot));
  return values_of<float>(w, codes, row, group_of(w, row, column));
}

// Columns ascend, so that where the ends share a group all of them do.
template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t row, int64_t slot, Column&& column) {
  const int64_t group = group_of(w, row, column(0));
  if (group == group_of(w, row, column(count - 1)))
    return values_of<Floats<count>>(w, codes_at<count>(w, slot), row, group);
  Floats<count> values{};
  for (int i = 0; i < count; ++i) values[i] = decode(w, row, column(i), slot + i);
  return values;
}

}  // namespace
"""

INTEGERS = """
SC_INLINE float as_floats(int32_t codes) { return static_cast<float>(codes); }
template <class Codes>
SC_INLINE auto as_floats(Codes codes) {
  return __builtin_convertvector(codes, Floats<sizeof(Codes) / sizeof(float)>);
}

template <class Values, class Codes>
SC_INLINE Values numbers_of(const Weight&, Codes codes, int64_t) {
  return as_floats(codes);
}
"""

SMALL_FLOATS = """
// A float whose exponent has {exponent} bits: shifted into place it is off by a power of two.
SC_INLINE float from_bits(int32_t bits) {{ return bit_cast<float>(bits); }}
template <class Codes>
SC_INLINE auto from_bits(Codes bits) {{ return (Floats<sizeof(Codes) / sizeof(float)>)bits; }}

template <class Values, class Codes>
SC_INLINE Values widen_small(Codes codes) {{
  const Values magnitudes = from_bits((codes & 0x7f) << {shift}) * 0x1p{power}f;
  return codes > 127 ? -magnitudes : magnitudes;
}}

template <class Values, class Codes>
SC_INLINE Values numbers_of(const Weight&, Codes codes, int64_t) {{
  return widen_small<Values>(codes);
}}
"""

CONSTANT_TABLE = """
{entries}

// The table of a row's codes.
SC_INLINE const float* table_of(const Weight&, int64_t) {{ return code_table; }}
"""

STORED_TABLE = """
// The table of a row's codes.
SC_INLINE const Element* table_of(const Weight& w, int64_t{row}) {{
  return w.table{place};
}}
"""

LOOK_UP = """
template <class Values, class Codes>
SC_INLINE Values numbers_of(const Weight& w, Codes codes, int64_t row) {
  const auto* table = table_of(w, row);
  if constexpr (std::is_same_v<Values, float>) {
    return to_float(table[codes]);
  } else {
    constexpr int entries = 1 << code_width, count = sizeof(Values) / sizeof(float);
    if constexpr (selects_in_registers<entries, count>() && entries >= count) {
      float floats[entries];
      for (int i = 0; i < entries; i += count) store(floats + i, load_floats<count>(table + i));
      return select<entries, count>(floats, codes);
    }
    Values values{};
    for (int i = 0; i < count; ++i) values[i] = to_float(table[codes[i]]);
    return values;
  }
}
"""

OFFSETS = """
// What a group has beside its scale.
enum class Offsets {{ none, zero_points, minima }};
constexpr Offsets offset_kind = Offsets::{kind};
using Offset = {element};
SC_INLINE const Offset* offsets_of(const Weight&{w}) {{ return {pointer}; }}
"""

SCALED = """
template <class Values>
SC_INLINE Values scaled(const Weight& w, Values numbers, int64_t group) {{
  return {expression};
}}
"""

ROUNDED = """
SC_INLINE float rounded(float value) { return to_float(from_float<Element>(value)); }
template <class Values>
SC_INLINE Values rounded(Values values) {
  constexpr int count = sizeof(Values) / sizeof(float);
  Element elements[count];
  store_floats<count>(elements, values);
  return load_floats<count>(elements);
}
"""
EXACT = """
template <class Values>
SC_INLINE Values rounded(Values values) { return values; }
"""


@dataclass(frozen=True)
class CppCoded(CppFragment):
    """What a codec's `Coding` says, in float32.

    Attributes:
        family: of the codecs that it reads.
    """

    family: str  # type: ignore[misc]

    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """`values`, `scales` if there are some, and what else a group or the weight has."""
        coding = spec.coding
        is_signed = coding.kind == "affine" and coding.bits == 8
        found = {"values": "int8_t" if is_signed else "uint8_t"}
        if coding.group is not None:
            found["scales"] = ELEMENTS[coding.scales]
        if coding.offsets is not None:
            minima = coding.offsets == "minima"
            found[coding.offsets] = ELEMENTS[coding.scales] if minima else "uint8_t"
        if coding.table_rows is not None:
            found["table"] = ELEMENTS[spec.dtype]
        return found

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """`code`, `decode` and `decode_vector`."""
        coding = spec.coding
        fields = self.fields(part, spec)
        signed = " ^ 128" if fields["values"] == "int8_t" else ""
        return "".join(
            (
                HEAD.format(codec=part, bits=coding.bits),
                BYTES.format(signed=signed) if coding.bits == 8 else STREAM,
                GROUPS.format(group=coding.group) if coding.group else ROWS,
                _offsets(coding, fields) if coding.kind == "affine" else "",
                _numbers(coding),
                SCALED.format(expression=_scaled(coding)),
                ROUNDED if coding.rounds else EXACT,
                DECODE,
            )
        )


def _offsets(coding: Coding, fields: Mapping[str, str]) -> str:
    """What groups have beside scales, as strips store it."""
    kind = coding.offsets
    if kind is None:
        return OFFSETS.format(kind="none", element="uint8_t", w="", pointer="nullptr")
    return OFFSETS.format(kind=kind, element=fields[kind], w=" w", pointer=f"w.{kind}")


def _numbers(coding: Coding) -> str:
    """What codes stand for before scales."""
    if coding.kind == "affine":
        return INTEGERS
    if coding.kind == "fp8":
        exponent = coding.exponent
        power = 127 - (2 ** (exponent - 1) - 1)
        return SMALL_FLOATS.format(exponent=exponent, shift=16 + exponent, power=power)
    return _table(coding) + LOOK_UP


def _table(coding: Coding) -> str:
    """The table that codes are places in."""
    rows = coding.table_rows
    if rows is None:
        entries = fill(", ".join(f"{entry!r}f" for entry in coding.table), 96)
        lines = entries.replace("\n", "\n    ")
        table = f"constexpr float code_table[1 << code_width] = {{\n    {lines}}};"
        return CONSTANT_TABLE.format(entries=table)
    place = f" + row / {rows} * (1 << code_width)" if rows else ""
    return STORED_TABLE.format(row=" row" if rows else "", place=place)


def _scaled(coding: Coding) -> str:
    """`numbers` times the scale of their group, with what else it has."""
    if coding.group is None:
        return "((void)w, (void)group, numbers)"
    scale = "to_float(w.scales[group])"
    if coding.offsets == "minima":
        return f"numbers * {scale} + to_float(w.minima[group])"
    if coding.offsets == "zero_points":
        return f"(numbers - static_cast<float>(w.zero_points[group])) * {scale}"
    if coding.kind == "affine":
        return f"(numbers - {2 ** (coding.bits - 1)}.0f) * {scale}"
    return f"numbers * {scale}"


COMPONENTS = tuple(map(CppCoded, ("codebook", "fp8", "nf4")))
