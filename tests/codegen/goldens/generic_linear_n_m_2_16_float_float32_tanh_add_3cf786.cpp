// linear n_m[2:16]/float float32 tanh add
... 13 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
constexpr int operand_count = 1;
... 10 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* codes;
... 8 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    codes = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    values = reinterpret_cast<const float*>(bytes + header.offsets[1]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// n_m[2:16]: a code of 8 bits for every group of 16 columns, the rank of the group's mask among all masks of 2 in 16 bits.

namespace {

constexpr int kept = 2, group = 16, code_bits = 8;
constexpr int column_padding = group - 1;
constexpr int slots_per_vector = native_floats % kept == 0 ? native_floats : 1;
constexpr bool vectors_are_cheap =
    selects_in_registers<slots_per_vector * group / kept, slots_per_vector>();

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) {
  return row * ceil_div(w.k, group) * kept;
}

SC_INLINE const uint8_t* codes_of(const Weight& w, int64_t row) {
  return w.codes + row * ceil_div(ceil_div(w.k, group) * code_bits, 8);
}

SC_INLINE uint32_t code_at(const uint8_t* codes, int64_t g) {
  return load<uint8_t>(codes + g * 1);
}

// All masks of `kept` in `group` bits, ascending: the next one moves the lowest run of bits.
struct Masks {
  uint32_t of[120];
  Masks() {
    uint64_t mask = (uint64_t{1} << kept) - 1;
    for (uint32_t& entry : of) {
      entry = static_cast<uint32_t>(mask);
      const uint64_t lowest = mask & -mask, carried = mask + lowest;
      mask = carried | ((mask ^ carried) / lowest >> 2);
    }
  }
};
const Masks masks;

SC_INLINE uint32_t mask_of(uint32_t code) { return masks.of[code]; }

template <class Visit>
SC_INLINE void visit_group(uint32_t code, int64_t column, int64_t slot, Visit&& visit) {
  uint32_t mask = mask_of(code);
  visit(lane<0>(), column + __builtin_ctz(mask), slot + 0);
  mask &= mask - 1;
  visit(lane<1>(), column + __builtin_ctz(mask), slot + 1);
}

// Positions of the set bits of every byte, from the lowest, one in each byte.
struct BytePositions {
  uint64_t of[256] = {};
  constexpr BytePositions() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, count = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte] |= static_cast<uint64_t>(bit) << (8 * count++);
  }
};
constexpr BytePositions byte_positions;
constexpr uint64_t every_byte = 0x0101010101010101;

// Where each slot's column is, counted from the first column of group g.
template <int width>
SC_INLINE Ints<width> columns_of(const uint8_t* codes, int64_t g) {
  constexpr int groups = width / kept;
  using Bytes = Vector<uint8_t, width>;
  Bytes positions;
  if constexpr (kept <= 8 && group <= 16) {
    using Positions = uint16_t;  // of one group
    Vector<Positions, groups> all;
#pragma GCC unroll 16
    for (int i = 0; i < groups; ++i) {
      const uint32_t mask = mask_of(code_at(codes, g + i));
      uint64_t found = byte_positions.of[mask & 0xff];
      if constexpr (group > 8) {
        // Without a bit in the upper byte nothing is added, whatever the shift.
        const int below = __builtin_popcount(mask & 0xff);
        const uint64_t upper = byte_positions.of[mask >> 8];
        const int above = __builtin_popcount(mask >> 8);
        const uint64_t used = above ? every_byte >> (64 - 8 * above) : 0;
        found |= (upper + 8 * used) << (8 * below & 63);
      }
      all[i] = static_cast<Positions>(found);
    }
    positions = (Bytes)all;
  } else {
    uint8_t list[width + 8];
    int count = 0;
    for (int i = 0; i < groups; ++i) {
      const uint32_t mask = mask_of(code_at(codes, g + i));
      for (int byte = 0; byte < group; byte += 8) {
        const uint32_t bits = mask >> byte & 0xff;
        store(list + count, byte_positions.of[bits] + byte * every_byte);
        count += __builtin_popcount(bits);
      }
    }
    positions = load<Bytes>(list);
  }
  return __builtin_convertvector(positions, Ints<width>) + iota<int32_t, width>() / kept * group;
}
... 4 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* codes = codes_of(w, row);
  const int64_t first = first_slot(w, row), end = ceil_div(to, group);
  for (int64_t g = ceil_div(from, group); g < end; ++g)
    visit_group(code_at(codes, g), g * group, first + g * kept, visit);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
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
... 41 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  value = hyperbolic_tangent(value);  // tanh
  value = value + operand0;  // add
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
