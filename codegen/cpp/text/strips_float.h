// Vectors of float values of the layout `strips`, and products with activations.
#include <immintrin.h>

namespace {

// How activations stand in the workspace: as they come where pairs of bfloat16 are multiplied by
// one instruction, else as floats.
#if defined(__AVX512BF16__)
constexpr bool multiplies_pairs = std::is_same_v<Element, bfloat16>;
#else
constexpr bool multiplies_pairs = false;
#endif
using Activation = std::conditional_t<multiplies_pairs, bfloat16, float>;

template <class To, class From>
SC_INLINE To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return to_float(value);
  }
}

#if defined(__AVX512VBMI2__)
SC_INLINE __m512i expand_words(__mmask32 mask, __m512i words) {
  return _mm512_maskz_expand_epi16(mask, words);
}
#else
// Words are widened, expanded in two halves and narrowed again.
SC_INLINE __m512i expand_words(__mmask32 mask, __m512i words) {
  const __mmask16 low = static_cast<__mmask16>(mask), high = static_cast<__mmask16>(mask >> 16);
  alignas(64) uint16_t list[48];
  _mm512_store_si512(list, words);
  const auto half = [](__mmask16 part, const uint16_t* from) SC_INLINED {
    const __m512i wide = _mm512_cvtepu16_epi32(load<__m256i>(from));
    return _mm512_cvtepi32_epi16(_mm512_maskz_expand_epi32(part, wide));
  };
  const __m256i first = half(low, list);
  const __m256i second = half(high, list + __builtin_popcount(low));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}
#endif

// Reads the vectors of a strip one after the other.
struct Reader {
  const char* at;
  const char* masks = nullptr;

  SC_INLINE void open_tile() {
    masks = at;
    at += mask_bytes;
  }
  // The codes of the tile's next vector, `v`, zero where nothing was kept.
  SC_INLINE __m512i next(int v) {
    if constexpr (!masked) {
      const __m512i codes = whole(at);
      at += vector_bytes;
      return codes;
    } else {
      const Mask mask = load<Mask>(masks + v * sizeof(Mask));
      const __m512i codes = whole(at);
      at += sizeof(Code) * __builtin_popcount(mask);
      if constexpr (sizeof(Code) == 4) return _mm512_maskz_expand_epi32(mask, codes);
      return expand_words(mask, codes);
    }
  }
  // float16 has 16 codes a vector: the upper half of what is loaded is not used.
  static SC_INLINE __m512i whole(const char* from) { return load<__m512i>(from); }
};

// Floats of one column of a vector: `column` counts inside it.
SC_INLINE __m512 floats_of(__m512i codes, int column) {
  if constexpr (std::is_same_v<Element, float>) {
    return _mm512_castsi512_ps(codes);
  } else if constexpr (std::is_same_v<Element, float16>) {
    return _mm512_cvtph_ps(_mm512_castsi512_si256(codes));
  } else {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    return _mm512_castsi512_ps(column ? _mm512_and_si512(codes, upper)
                                      : _mm512_slli_epi32(codes, 16));
  }
}

// sum + vector times the activations x[0 .. depth).
SC_INLINE __m512 multiply_add(__m512 sum, __m512i codes, const float* x) {
  for (int c = 0; c < depth; ++c)
    sum = _mm512_fmadd_ps(floats_of(codes, c), _mm512_set1_ps(x[c]), sum);
  return sum;
}

// The same for an expanded vector, which holds one column, or a pair of them.
SC_INLINE __m512 multiply_expanded(__m512 sum, __m512i w, const float* x) {
  return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_set1_ps(*x), sum);
}

#if defined(__AVX512BF16__)
SC_INLINE __m512 multiply_add(__m512 sum, __m512i codes, const bfloat16* x) {
  const __m512i pair = _mm512_set1_epi32(load<int32_t>(x));
  return _mm512_dpbf16_ps(sum, (__m512bh)codes, (__m512bh)pair);
}

SC_INLINE __m512 multiply_expanded(__m512 sum, __m512i w, const bfloat16* x) {
  return multiply_add(sum, w, x);
}
#endif

}  // namespace
