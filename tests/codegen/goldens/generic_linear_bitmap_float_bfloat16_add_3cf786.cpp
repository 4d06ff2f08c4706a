// linear bitmap/float bfloat16 add
... 11 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
using Element = bfloat16;  // of x, bias, operands and y
using Scale = bfloat16;  // of values of W, where these have scales
constexpr int operand_count = 1;
... 10 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  const uint8_t* bits;
  const int32_t* row_offsets;
  const bfloat16* values;
... 7 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
    bits = reinterpret_cast<const uint8_t*>(bytes + header.offsets[0]);
    row_offsets = reinterpret_cast<const int32_t*>(bytes + header.offsets[1]);
    values = reinterpret_cast<const bfloat16*>(bytes + header.offsets[2]);
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
// bitmap: bit column % 8 of byte column / 8 of a row; slots follow in the order of the bits.
// Bits become a list of columns first: the loops over values then run without a wrong guess at
// every word.
#if defined(__AVX512VBMI2__)
#include <immintrin.h>
#endif
... 5 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
constexpr bool vectors_are_cheap = false;
constexpr int64_t list_columns = 4096;  // columns expanded at once

#if defined(__AVX512VBMI2__)
// Columns, counted from `from`, of the set bits in [from, to); how many they are.
SC_INLINE int64_t expand_bits(const Weight& w, int64_t row, int64_t from, int64_t to,
                              uint16_t* list) {
  const uint8_t* bits = w.bits + row * ceil_div(w.k, 8) + from / 8;
  const int64_t bytes = ceil_div(to - from, 8);
  __m512i columns = bit_cast<__m512i>(iota<uint16_t, 32>());
  const __m512i step = _mm512_set1_epi16(32);
  int64_t count = 0;
  for (int64_t i = 0; i < bytes; i += 4) {
    uint32_t mask = 0;
    if (i + 4 <= bytes) {
      mask = load<uint32_t>(bits + i);
    } else {
      std::memcpy(&mask, bits + i, bytes - i);
    }
    _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi16(mask, columns));
    count += __builtin_popcount(mask);
    columns = _mm512_add_epi16(columns, step);
  }
  return count;
}
#else
// Positions of the set bits of every byte, from the lowest.
struct BytePositions {
  alignas(16) uint16_t of[256][8] = {};
  constexpr BytePositions() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, count = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte][count++] = static_cast<uint16_t>(bit);
  }
};
constexpr BytePositions byte_positions;

// Columns, counted from `from`, of the set bits in [from, to); how many they are.
SC_INLINE int64_t expand_bits(const Weight& w, int64_t row, int64_t from, int64_t to,
                              uint16_t* list) {
  using Columns = Vector<uint16_t, 8>;
  const uint8_t* bits = w.bits + row * ceil_div(w.k, 8) + from / 8;
  const int64_t bytes = ceil_div(to - from, 8);
  int64_t count = 0, i = 0;
  const auto append = [&](uint64_t byte, int64_t at) SC_INLINED {
    const Columns positions = load<Columns>(byte_positions.of[byte]);
    store(list + count, positions + static_cast<uint16_t>(8 * at));
    count += __builtin_popcountll(byte);
  };
  for (; i + 8 <= bytes; i += 8) {
    const uint64_t word = load<uint64_t>(bits + i);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) append(word >> (8 * j) & 0xff, i + j);
  }
  for (; i < bytes; ++i) append(bits[i], i);
  return count;
}
#endif

SC_INLINE int64_t first_slot(const Weight& w, int64_t row) { return w.row_offsets[row]; }

template <class Visit>
SC_INLINE void visit_row(const Weight& w, int64_t row, int64_t& cursor, int64_t from, int64_t to,
                         Visit&& visit) {
  uint16_t list[list_columns + 32];
  for (; from < to; from += list_columns) {
    const int64_t end = from + list_columns < to ? from + list_columns : to;
    const int64_t count = expand_bits(w, row, from, end, list);
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      visit(lane<0>(), from + list[i], cursor + i);
      visit(lane<1>(), from + list[i + 1], cursor + i + 1);
      visit(lane<2>(), from + list[i + 2], cursor + i + 2);
      visit(lane<3>(), from + list[i + 3], cursor + i + 3);
    }
    for (; i < count; ++i) visit(lane<0>(), from + list[i], cursor + i);
    cursor += count;
  }
... 6 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  uint16_t list[list_columns + 32];
  int64_t slot = first_slot(w, row);
  for (int64_t from = 0; from < w.k; from += list_columns) {
    const int64_t end = from + list_columns < w.k ? from + list_columns : w.k;
    const int64_t count = expand_bits(w, row, from, end, list);
    const auto step = [&](auto chain, int64_t at) SC_INLINED {
      visit_vector(chain, slot + at,
                   [&](const float* x) SC_INLINED { return gather<width>(x + from, list + at); },
                   [&](int i) SC_INLINED { return from + list[at + i]; });
    };
    int64_t i = 0;
    for (; i + 4 * width <= count; i += 4 * width) {
      step(lane<0>(), i);
      step(lane<1>(), i + width);
      step(lane<2>(), i + 2 * width);
      step(lane<3>(), i + 3 * width);
    }
    for (; i + width <= count; i += width) step(lane<0>(), i);
    for (; i < count; ++i) visit(lane<0>(), from + list[i], slot + i);
    slot += count;
  }
... 41 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
  value = value + operand0;  // add
... 12 lines as in generic_linear_dense_float_float32_3cf786.cpp ...
