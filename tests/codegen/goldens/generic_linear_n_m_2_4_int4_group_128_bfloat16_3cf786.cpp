// linear n_m[2:4]/int4[group=128] bfloat16
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = bfloat16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* codes;
  const uint8_t* values;
  const bfloat16* scales;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    codes = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    values = reinterpret_cast<const uint8_t*>(bytes + header.offsets[1]);
    scales = reinterpret_cast<const bfloat16*>(bytes + header.offsets[2]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// n_m[2:4]: a code of 4 bits for every group of 4 columns, the positions of the kept values, two bits each.

namespace {

constexpr int kept = 2, group = 4, code_bits = 4;
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
  visit(lane<0>(), column + (code >> 0 & 3), slot + 0);
  visit(lane<1>(), column + (code >> 2 & 3), slot + 1);
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
... 4 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// int4[group=128]: an integer of 4 bits times the scale of its group of 128 columns.

namespace {

constexpr int64_t scale_group = 128;

// Columns of the padding have the last group's.
SC_INLINE float scale_of(const Weight& w, int64_t row, int64_t column) {
  const int64_t groups = ceil_div(w.k, scale_group), group = column / scale_group;
  return to_float(w.scales[row * groups + (group < groups ? group : groups - 1)]);
}

// Columns ascend, so that where the ends share a group all of them do.
template <int count, class Column>
SC_INLINE Floats<count> scales_of(const Weight& w, int64_t row, Column&& column) {
  const int64_t first = column(0), last = column(count - 1);
  if (first / scale_group == last / scale_group)
    return Floats<count>{} + scale_of(w, row, first);
  Floats<count> scales{};
  for (int i = 0; i < count; ++i) scales[i] = scale_of(w, row, column(i));
  return scales;
}

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

SC_INLINE float decode(const Weight& w, int64_t row, int64_t column, int64_t slot) {
  return static_cast<float>(integer_at(w, slot)) * scale_of(w, row, column);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t row, int64_t slot, Column&& column) {
  return integers_at<count>(w, slot) * scales_of<count>(w, row, column);
... 32 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
