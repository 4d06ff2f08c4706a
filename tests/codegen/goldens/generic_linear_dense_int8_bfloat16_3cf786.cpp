// linear dense/int8 bfloat16
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = bfloat16;  // of x, bias, operands and y
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const int8_t* values;
  const bfloat16* scales;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    values = reinterpret_cast<const int8_t*>(bytes + header.offsets[0]);
    scales = reinterpret_cast<const bfloat16*>(bytes + header.offsets[1]);
... 52 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// int8: an integer of 8 bits times the scale of its row.

namespace {

SC_INLINE float scale_of(const Weight& w, int64_t row, int64_t) {
  return to_float(w.scales[row]);
}

template <int count, class Column>
SC_INLINE Floats<count> scales_of(const Weight& w, int64_t row, Column&&) {
  return Floats<count>{} + scale_of(w, row, 0);
}

SC_INLINE int integer_at(const Weight& w, int64_t slot) { return w.values[slot]; }

SC_INLINE uint32_t code(const Weight& w, int64_t slot) {
  return static_cast<uint8_t>(w.values[slot]) ^ 128u;
}

template <int count>
SC_INLINE Floats<count> integers_at(const Weight& w, int64_t slot) {
  prefetch(w.values + slot);
  return __builtin_convertvector(load<Vector<int8_t, count>>(w.values + slot), Floats<count>);
}

SC_INLINE float decode(const Weight& w, int64_t row, int64_t column, int64_t slot) {
  return static_cast<float>(integer_at(w, slot)) * scale_of(w, row, column);
}

template <int count, class Column>
SC_INLINE Floats<count> decode_vector(const Weight& w, int64_t row, int64_t slot, Column&& column) {
  return integers_at<count>(w, slot) * scales_of<count>(w, row, column);
... 32 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
