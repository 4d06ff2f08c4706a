// How values of W and activations meet: what both are where they are multiplied.
#include <immintrin.h>

namespace {

// Pairs of bfloat16 are multiplied by one instruction; everything else as floats. Integers of eight
// bits are exact in bfloat16.
#if defined(__AVX512BF16__)
constexpr bool multiplies_pairs =
    std::is_same_v<Element, bfloat16> || (rounds_activations && group_columns == 0);
#else
constexpr bool multiplies_pairs = false;
#endif
using Activation = std::conditional_t<multiplies_pairs, bfloat16, float>;

template <class To, class From>
SC_INLINE To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return from_float<To>(to_float(value));
  }
}

// What is multiplied for an element of x: where x is rounded, the integer times `scale`.
SC_INLINE Activation activation_of(Element value, float scale) {
  if constexpr (rounds_activations) {
    return from_float<Activation>((to_float(value) / scale + 0x1.8p23f) - 0x1.8p23f);
  } else {
    return convert<Activation>(value);
  }
}

// sum + a vector of one column of W, or of a pair of columns, times their activations.
SC_INLINE __m512 multiply_expanded(__m512 sum, __m512i w, const float* x) {
  return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_set1_ps(*x), sum);
}

#if defined(__AVX512BF16__)
SC_INLINE __m512 multiply_expanded(__m512 sum, __m512i w, const bfloat16* x) {
  const __m512i pair = _mm512_set1_epi32(load<int32_t>(x));
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)pair);
}
#endif

inline int64_t padded_columns(int64_t k) { return ceil_div(k, tile_columns) * tile_columns; }

}  // namespace
