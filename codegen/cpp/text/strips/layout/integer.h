// Vectors of integer values of the layout `strips`: codes are integers above zero, `cut` stands for
// zero; scales come in while a tile is expanded, or, where a row has one, at the end.

namespace {

template <class Out>
inline Out element_of(const Strips& w, Code value, int64_t row, int64_t column) {
  const Scale* scales = w.strip_scales(row / strip_rows) + column / group_step * strip_rows;
  const float integer = static_cast<float>(static_cast<int>(value) - cut);
  return from_float<Out>(integer * to_float(scales[row % strip_rows]));
}

// The same, times the scales of its group, where a row has more than one.
SC_INLINE Singles floats_of(const Reader& reader, Register codes, int column) {
  const Singles floats = integers_of(codes, column);
  if constexpr (group_columns > 0) return (Singles)(floats * (Singles)reader.group.scales);
  return floats;
}

// Sums of a tile's products with floats, times the scales of its group, where a row has several.
constexpr bool defers_scales = group_columns > 0;
SC_INLINE Sums scale_tile(const Reader& reader, Sums sums) {
  if constexpr (group_columns > 0) return (Sums)((Floats<strip_rows>)sums * reader.group.scales);
  return sums;
}

// sum + vector times its activations, before scales.
SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, Register codes, const float* x) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    sum = (Sums)fused_multiply_add(integers_of(codes, c), activations_of(reader.kept, x, c),
                                   (Singles)sum);
  return sum;
}

SC_INLINE void store_expanded(const Reader&, Register codes, uint8_t* out) { store(out, codes); }

SC_INLINE void store_expanded(const Reader& reader, Register codes, float* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c) store(out + c * strip_rows, floats_of(reader, codes, c));
}

#if defined(__AVX512BF16__)
// Two columns of a vector, lane by lane side by side.
SC_INLINE __m512i pairs_of(const Reader& reader, __m512i codes, int column) {
  const __m512 first = floats_of(reader, codes, column);
  const __m512 second = floats_of(reader, codes, column + 1);
  if constexpr (group_columns > 0) return side_by_side(first, second);
  // Integers of up to eight bits are exact: the lower halves of these floats are zero.
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(first), 16),
                         _mm512_castps_si512(second));
}

SC_INLINE void store_expanded(const Reader& reader, __m512i codes, bfloat16* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; c += 2)
    _mm512_storeu_si512(out + c * strip_rows, pairs_of(reader, codes, c));
}
#endif

// The end of sums of a strip: times the scales of its lanes, where a row has one.
SC_INLINE Floats<strip_rows> scale_sums(const Strips& w, int64_t strip, Floats<strip_rows> sums) {
  if constexpr (group_columns > 0) return sums;
  return load_scales(w.strip_scales(strip)) * sums;
}

}  // namespace
