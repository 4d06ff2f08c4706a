// Vectors of float values of the layout `strips`, and products with activations.

namespace {

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
  const char* at = nullptr;
  const char* head = nullptr;
  __m512i kinds;  // of pairs, those of the next vector lowest
  __m512i group;  // the column of the next one, twice a lane
  __m512i pairs;  // the columns of a vector's pairs
  Lookahead ahead;

  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    at = w.stream + w.offsets[strip];
    ahead.open_strip(w, strip, next, last);
  }
  SC_INLINE void open_tile(const Strips&, int64_t, int64_t) {
    ahead.open_tile(at);
    head = at;
    at += head_bytes;
    if constexpr (paired) {
      kinds = load<__m512i>(head);
      group = _mm512_setzero_si512();
    }
  }
  // The codes of the tile's next vector, `v`, zero where nothing was kept.
  SC_INLINE __m512i next(int v) {
    ahead.fetch(at);
    if constexpr (paired) {
      // Of an index only the lowest four bits count.
      const __m512i columns = _mm512_permutexvar_epi32(kinds, load<__m512i>(words_of_pair.of));
      pairs = _mm512_add_epi16(columns, group);
      group = _mm512_add_epi16(group, _mm512_set1_epi16(group_columns_of_pair));
      kinds = _mm512_srli_epi32(kinds, 4);
    }
    const __m512i codes = load<__m512i>(at);
    if constexpr (!masked) {
      at += vector_bytes;
      return codes;
    } else {
      const Mask mask = load<Mask>(head + v * sizeof(Mask));
      at += sizeof(Code) * __builtin_popcount(mask);
      if constexpr (sizeof(Code) == 4) return _mm512_maskz_expand_epi32(mask, codes);
      return expand_words(mask, codes);
    }
  }
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

template <class Out>
inline Out element_of(const Strips&, Code value, int64_t, int64_t) {
  return convert<Out>(bit_cast<Element>(value));
}

inline void write_scales(const Weight&, int64_t, bfloat16*) {}

// An expanded vector, as the loops over many rows of x multiply it.
SC_INLINE void store_expanded(const Reader&, __m512i codes, bfloat16* out) {
  _mm512_storeu_si512(out, codes);
}
SC_INLINE void store_expanded(const Reader&, __m512i codes, float* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c) _mm512_storeu_ps(out + c * strip_rows, floats_of(codes, c));
}

// Values have no scales that remain for the end.
SC_INLINE Floats<strip_rows> scale_sums(const Strips&, int64_t, Floats<strip_rows> sums) {
  return sums;
}

SC_INLINE Sums scale_tile(const Reader&, Sums sums) { return sums; }

// sum + vector times the activations x[0 .. depth).
SC_INLINE Sums multiply_add(const Reader&, Sums sum, __m512i codes, const float* x) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    sum = multiply_expanded(sum, _mm512_castps_si512(floats_of(codes, c)), x + c);
  return sum;
}

#if defined(__AVX512BF16__)
SC_INLINE __m512i pairs_of(const Reader&, __m512i codes, int) { return codes; }

SC_INLINE Sums multiply_add(const Reader& reader, Sums sum, __m512i codes, const bfloat16* x) {
  if constexpr (!paired) return multiply_expanded(sum, codes, x);
  const __m512i pairs = _mm512_permutexvar_epi16(reader.pairs, load<__m512i>(x));
  return (Sums)_mm512_dpbf16_ps((__m512)sum, (__m512bh)codes, (__m512bh)pairs);
}
#endif

}  // namespace
