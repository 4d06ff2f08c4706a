// Pairs of bfloat16 from a table of sixteen: one instruction looks up two columns of every row. Where a group
// of columns has scales, sums of its products are scaled.

namespace {

constexpr bool defers_scales = has_scales && multiplies_pairs && decode_pairs != 0;
SC_INLINE Sums scale_tile(const Reader& reader, Sums sums) {
  return defers_scales ? (Sums)((Singles)sums * reader.group.scale) : sums;
}

#if defined(__AVX512BF16__)
static_assert(looks_up_pairs && !masked);

// Two columns of a vector before scales, lane by lane side by side: see `column_of_byte`.
SC_INLINE __m512i entries_of(const Reader& reader, __m512i codes, int column) {
  return _mm512_permutexvar_epi16(_mm512_srli_epi32(codes, 4 * column), reader.group.pairs);
}
SC_INLINE __m512i pairs_of(const Reader& reader, __m512i codes, int column) {
  if constexpr (!has_scales) return entries_of(reader, codes, column);
  return side_by_side(exact_floats_of(reader, codes, column),
                      exact_floats_of(reader, codes, column + 1));
}

SC_INLINE void store_expanded(const Reader& reader, __m512i codes, bfloat16* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; c += 2)
    _mm512_storeu_si512(out + c * strip_rows, pairs_of(reader, codes, c));
}

SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, Register codes, const bfloat16* x) {
#pragma GCC unroll 2
  for (int c = 0; c < depth; c += 2) {
    const __m512i w = entries_of(reader, codes, c);
    const __m512i pairs = paired ? _mm512_permutexvar_epi16(reader.kept.pairs, load<__m512i>(x))
                                 : _mm512_set1_epi32(load<int32_t>(x + c));
    sum = (Sums)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)pairs);
  }
  return sum;
}
#endif

}  // namespace
