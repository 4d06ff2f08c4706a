// Pairs of bfloat16 of values that are decoded.

namespace {

constexpr bool defers_scales = false;
SC_INLINE Sums scale_tile(const Reader&, Sums sums) { return sums; }

#if defined(__AVX512BF16__)
// Two columns of a vector, lane by lane side by side, rounded to nearest.
SC_INLINE __m512i pairs_of(const Reader& reader, __m512i codes, int column) {
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
    const __m512i w = pairs_of(reader, codes, c);
    const __m512i pairs = paired ? _mm512_permutexvar_epi16(reader.kept.pairs, load<__m512i>(x))
                                 : _mm512_set1_epi32(load<int32_t>(x + c));
    sum = (Sums)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)pairs);
  }
  return sum;
}
#endif

}  // namespace
