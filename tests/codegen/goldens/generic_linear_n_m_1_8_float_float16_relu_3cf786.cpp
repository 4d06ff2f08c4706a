// linear n_m[1:8]/float float16 relu
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = float16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* codes;
  const float16* values;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    codes = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    values = reinterpret_cast<const float16*>(bytes + header.offsets[1]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// n_m[1:8]: a code of 4 bits for every group of 8 columns, the rank of the group's mask among all masks of 1 in 8 bits.

namespace {

constexpr int kept = 1, group = 8, code_bits = 4;
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
  return codes[g * 4 / 8] >> (g * 4 % 8) & 15;
}

constexpr int position_bits = code_bits / kept;

template <class Visit>
SC_INLINE void visit_group(uint32_t code, int64_t column, int64_t slot, Visit&& visit) {
  visit(lane<0>(), column + (code >> 0 & 15), slot + 0);
}

// Where each slot's column is, counted from the first column of group g.
template <int width>
SC_INLINE Ints<width> columns_of(const uint8_t* codes, int64_t g) {
  constexpr int total = width * position_bits;
  constexpr int mask = (1 << position_bits) - 1;
  const Ints<width> slot = iota<int32_t, width>();
  Ints<width> word;
  if constexpr (total < 8) {
    word = Ints<width>{} + (codes[g * code_bits / 8] >> (g * code_bits % 8));
  } else if constexpr (total == 8) {
    word = Ints<width>{} + codes[g * code_bits / 8];
  } else if constexpr (total == 16) {
    word = Ints<width>{} + load<uint16_t>(codes + g * code_bits / 8);
  } else {
    const uint8_t* at = codes + g * code_bits / 8;
    word = Ints<width>{} + load<int32_t>(at);
    if constexpr (total > 32) {
      static_assert(total == 64, "two words");
      word = slot < width / 2 ? word : Ints<width>{} + load<int32_t>(at + 4);
    }
  }
  const Ints<width> position = (word >> (slot * position_bits % 32)) & mask;
  return position + slot / kept * group;
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
  value = value < 0.0f ? Values{} : value;  // relu
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
