"""`n_m` in C++."""

from __future__ import annotations

from math import comb

from sparsecompile.codegen.cpp.fragment import CppFragment
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.structures.n_m import NM

HEAD = """\
// {name}: a code of {bits} bits for every group of {m} columns, {meaning}.

namespace {{

constexpr int kept = {n}, group = {m}, code_bits = {bits};
constexpr int column_padding = group - 1;
constexpr int slots_per_vector = native_floats % kept == 0 ? native_floats : 1;
constexpr bool vectors_are_cheap =
    selects_in_registers<slots_per_vector * group / kept, slots_per_vector>();

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) {{
  return row * ceil_div(w.k, group) * kept;
}}

SC_INLINE const uint8_t* codes_of(const Weight& w, int64_t row) {{
  return w.codes + row * ceil_div(ceil_div(w.k, group) * code_bits, 8);
}}

SC_INLINE uint32_t code_at(const uint8_t* codes, int64_t g) {{
  {code_at}
}}
"""

MEANINGS = {
    "positions": "the positions of the kept values, two bits each",
    "rank": "the rank of the group's mask among all masks of {n} in {m} bits",
    "mask": "the group's mask",
}

# A position can be read from the code without a table or a search.
DIRECT = """
constexpr int position_bits = code_bits / kept;

template <class Visit>
SC_INLINE void visit_group(uint32_t code, int64_t column, int64_t slot, Visit&& visit) {{
{visits}
}}

// Where each slot's column is, counted from the first column of group g.
template <int width>
SC_INLINE Ints<width> columns_of(const uint8_t* codes, int64_t g) {{
  constexpr int total = width * position_bits;
  constexpr int mask = (1 << position_bits) - 1;
  const Ints<width> slot = iota<int32_t, width>();
  Ints<width> word;
  if constexpr (total < 8) {{
    word = Ints<width>{{}} + (codes[g * code_bits / 8] >> (g * code_bits % 8));
  }} else if constexpr (total == 8) {{
    word = Ints<width>{{}} + codes[g * code_bits / 8];
  }} else if constexpr (total == 16) {{
    word = Ints<width>{{}} + load<uint16_t>(codes + g * code_bits / 8);
  }} else {{
    const uint8_t* at = codes + g * code_bits / 8;
    word = Ints<width>{{}} + load<int32_t>(at);
    if constexpr (total > 32) {{
      static_assert(total == 64, "two words");
      word = slot < width / 2 ? word : Ints<width>{{}} + load<int32_t>(at + 4);
    }}
  }}
  const Ints<width> position = (word >> (slot * position_bits % 32)) & mask;
  return position + slot / kept * group;
}}
"""

MASKED = """
template <class Visit>
SC_INLINE void visit_group(uint32_t code, int64_t column, int64_t slot, Visit&& visit) {{
  uint32_t mask = mask_of(code);
{visits}
}}

// Positions of the set bits of every byte, from the lowest, one in each byte.
struct BytePositions {{
  uint64_t of[256] = {{}};
  constexpr BytePositions() {{
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, count = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte] |= static_cast<uint64_t>(bit) << (8 * count++);
  }}
}};
constexpr BytePositions byte_positions;
constexpr uint64_t every_byte = 0x0101010101010101;

// Where each slot's column is, counted from the first column of group g.
template <int width>
SC_INLINE Ints<width> columns_of(const uint8_t* codes, int64_t g) {{
  constexpr int groups = width / kept;
  using Bytes = Vector<uint8_t, width>;
  Bytes positions;
  if constexpr (kept <= 8 && group <= 16) {{
    using Positions = {positions};  // of one group
    Vector<Positions, groups> all;
#pragma GCC unroll 16
    for (int i = 0; i < groups; ++i) {{
      const uint32_t mask = mask_of(code_at(codes, g + i));
      uint64_t found = byte_positions.of[mask & 0xff];
      if constexpr (group > 8) {{
        // Without a bit in the upper byte nothing is added, whatever the shift.
        const int below = __builtin_popcount(mask & 0xff);
        const uint64_t upper = byte_positions.of[mask >> 8];
        const int above = __builtin_popcount(mask >> 8);
        const uint64_t used = above ? every_byte >> (64 - 8 * above) : 0;
        found |= (upper + 8 * used) << (8 * below & 63);
      }}
      all[i] = static_cast<Positions>(found);
    }}
    positions = (Bytes)all;
  }} else {{
    uint8_t list[width + 8];
    int count = 0;
    for (int i = 0; i < groups; ++i) {{
      const uint32_t mask = mask_of(code_at(codes, g + i));
      for (int byte = 0; byte < group; byte += 8) {{
        const uint32_t bits = mask >> byte & 0xff;
        store(list + count, byte_positions.of[bits] + byte * every_byte);
        count += __builtin_popcount(bits);
      }}
    }}
    positions = load<Bytes>(list);
  }}
  return __builtin_convertvector(positions, Ints<width>) + iota<int32_t, width>() / kept * group;
}}
"""

MASK_OF = """
SC_INLINE uint32_t mask_of(uint32_t code) { return code; }
"""

RANK_OF = """
// All masks of `kept` in `group` bits, ascending: the next one moves the lowest run of bits.
struct Masks {{
  uint32_t of[{count}];
  Masks() {{
    uint64_t mask = (uint64_t{{1}} << kept) - 1;
    for (uint32_t& entry : of) {{
      entry = static_cast<uint32_t>(mask);
      const uint64_t lowest = mask & -mask, carried = mask + lowest;
      mask = carried | ((mask ^ carried) / lowest >> 2);
    }}
  }}
}};
const Masks masks;

SC_INLINE uint32_t mask_of(uint32_t code) {{ return masks.of[code]; }}
"""

VISITS = """
template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t&, int64_t from, int64_t to,
                         Visit&& visit) {
  const uint8_t* codes = codes_of(w, row);
  const int64_t first = first_slot(w, row), end = ceil_div(to, group);
  for (int64_t g = ceil_div(from, group); g < end; ++g)
    visit_group(code_at(codes, g), g * group, first + g * kept, visit);
}

template <class VisitVector, class Visit>
SC_INLINE void visit_row_vectors(const Weight& w, int64_t row, VisitVector&& visit_vector,
                                 Visit&& visit) {
  constexpr int width = slots_per_vector, groups = width / kept;
  const uint8_t* codes = codes_of(w, row);
  const int64_t first = first_slot(w, row), end = ceil_div(w.k, group);
  const auto step = [&](auto chain, int64_t g) SC_INLINED {
    const Ints<width> columns = columns_of<width>(codes, g);
    const auto activations = [&](const float* x) SC_INLINED {
      return select<groups * group, width>(x + g * group, columns);
    };
    visit_vector(chain, first + g * kept, activations,
                 [&](int i) SC_INLINED { return g * group + columns[i]; });
  };
  int64_t g = 0;
  for (; g + 4 * groups <= end; g += 4 * groups) {
    step(lane<0>(), g);
    step(lane<1>(), g + groups);
    step(lane<2>(), g + 2 * groups);
    step(lane<3>(), g + 3 * groups);
  }
  for (; g + groups <= end; g += groups) step(lane<0>(), g);
  for (; g < end; ++g) visit_group(code_at(codes, g), g * group, first + g * kept, visit);
}

}  // namespace
"""


class CppNM(CppFragment):
    """A code a group; `2:4` and `1:m` are read without a table."""

    family = "n_m"

    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """`codes`."""
        return {"codes": "uint8_t"}

    def render(self, part: Structure | Codec, spec: KernelSpec) -> str:
        """Visits of the positions that the codes stand for."""
        if not isinstance(part, NM):
            raise TypeError(f"{part} is not an n:m structure")
        head = HEAD.format(
            name=part,
            n=part.n,
            m=part.m,
            bits=part.code_bits,
            meaning=MEANINGS[part.coding].format(n=part.n, m=part.m),
            code_at=_code_at(part.code_bits),
        )
        return head + _positions(part) + VISITS


def _code_at(bits: int) -> str:
    if bits < 8:
        mask = 2**bits - 1
        return f"return codes[g * {bits} / 8] >> (g * {bits} % 8) & {mask};"
    return f"return load<uint{bits}_t>(codes + g * {bits // 8});"


def _positions(part: NM) -> str:
    # The rank of a mask with one bit is the bit's position.
    if part.coding == "positions" or (part.coding == "rank" and part.n == 1):
        return DIRECT.format(visits=_direct_visits(part))
    if part.coding == "mask" and part.n == 1:
        return MASK_OF + MASKED.format(visits=_masked_visits(part), positions="uint8_t")
    table = MASK_OF if part.coding == "mask" else RANK_OF.format(count=comb(part.m, part.n))
    positions = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t"}.get(part.n, "uint64_t")
    return table + MASKED.format(visits=_masked_visits(part), positions=positions)


def _direct_visits(part: NM) -> str:
    bits = part.code_bits // part.n
    return "\n".join(
        f"  visit(lane<{i % 4}>(), column + (code >> {i * bits} & {2**bits - 1}), slot + {i});"
        for i in range(part.n)
    )


def _masked_visits(part: NM) -> str:
    lines = []
    for i in range(part.n):
        lines.append(f"  visit(lane<{i % 4}>(), column + __builtin_ctz(mask), slot + {i});")
        lines.append("  mask &= mask - 1;")
    return "\n".join(lines[:-1])


COMPONENTS = (CppNM(),)
