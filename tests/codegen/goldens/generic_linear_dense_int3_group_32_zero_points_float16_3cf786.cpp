// linear dense/int3[group=32,zero_points] float16
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = float16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* values;
  const bfloat16* scales;
  const uint8_t* zero_points;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    values = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    scales = reinterpret_cast<const bfloat16*>(bytes + header.offsets[1]);
    zero_points = reinterpret_cast<const uint8_t*>(bytes + header.offsets[2]);
... 52 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// int3[group=32,zero_points]: codes of 3 bits, one after the other.

namespace {

constexpr int code_width = 3;

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

// Which group of a row's columns a column is in; those of the padding are in the last one.
SC_INLINE int64_t group_of(const Weight& w, int64_t row, int64_t column) {
  constexpr int64_t group_size = 32;
  const int64_t groups = ceil_div(w.k, group_size), group = column / group_size;
  return row * groups + (group < groups ? group : groups - 1);
}

// What a group has beside its scale.
enum class Offsets { none, zero_points, minima };
constexpr Offsets offset_kind = Offsets::zero_points;
using Offset = uint8_t;
SC_INLINE const Offset* offsets_of(const Weight& w) { return w.zero_points; }

SC_INLINE float as_floats(int32_t codes) { return static_cast<float>(codes); }
template <class Codes>
SC_INLINE auto as_floats(Codes codes) {
  return __builtin_convertvector(codes, Floats<sizeof(Codes) / sizeof(float)>);
}

template <class Values, class Codes>
SC_INLINE Values numbers_of(const Weight&, Codes codes, int64_t) {
  return as_floats(codes);
}

template <class Values>
SC_INLINE Values scaled(const Weight& w, Values numbers, int64_t group) {
  return (numbers - static_cast<float>(w.zero_points[group])) * to_float(w.scales[group]);
}

template <class Values>
SC_INLINE Values rounded(Values values) { return values; }

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
... 32 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
