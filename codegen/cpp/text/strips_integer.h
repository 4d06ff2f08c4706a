// Vectors of integer values of the layout `strips`: codes are integers above zero, `cut` stands for
// zero; scales come in while a tile is expanded, or, where a row has one, at the end.

namespace {

template <class Out>
inline Out element_of(const Strips& w, Code value, int64_t row, int64_t column) {
  const bfloat16* scales = w.strip_scales(row / strip_rows) + column / group_step * strip_rows;
  const float integer = static_cast<float>(static_cast<int>(value) - cut);
  return from_float<Out>(integer * to_float(scales[row % strip_rows]));
}

// Scales of a strip, lanes side by side; lanes without a row have none.
inline void write_scales(const Weight& w, int64_t strip, bfloat16* out) {
  const int64_t groups = scale_groups(w.k);
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t lane = 0; lane < strip_rows; ++lane) {
      const int64_t row = strip * strip_rows + lane;
      *out++ = row < w.n ? w.scales[row * groups + group] : bfloat16{};
    }
}

SC_INLINE __m512 load_scales(const bfloat16* scales) {
  return bit_cast<__m512>(load_floats<16>(scales));
}

// 64 codes a byte each, from two a byte.
SC_INLINE __m512i unpack_halves(__m256i bytes) {
  const __m512i words = _mm512_cvtepu8_epi16(bytes);
  const __m512i both = _mm512_or_si512(words, _mm512_slli_epi16(words, 4));
  return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

// Reads the vectors of a strip one after the other.
struct Reader {
  const char* at = nullptr;
  const char* head = nullptr;
  const bfloat16* scales = nullptr;  // of the tile's group of columns
  __m512 tile_scales;                // the same as floats
  __m512i halves;                    // two vectors of four bits
  __m512i kinds;  // of pairs, those of the next vector lowest
  __m512i group;  // the column of the next two, twice a lane each
  __m512i pairs;  // the columns of a vector's pairs
  Lookahead ahead;

  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    at = w.stream + w.offsets[strip];
    ahead.open_strip(w, strip, next, last);
  }
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t place) {
    ahead.open_tile(at);
    head = at;
    at += head_bytes;
    if constexpr (paired) {
      kinds = load<__m512i>(head);
      group = _mm512_set1_epi32(group_columns_of_pair << 16 | group_columns_of_pair << 24);
    }
    scales = w.strip_scales(strip) + place * tile_columns / group_step * strip_rows;
    tile_scales = load_scales(scales);
  }
  // The codes of the tile's next vector, `v`, a byte each, `cut` where nothing was kept.
  SC_INLINE __m512i next(int v) {
    if constexpr (paired) {
      // Of an index only the lowest five bits count, and the table is there twice.
      const __m512i columns = _mm512_permutexvar_epi16(kinds, load<__m512i>(bytes_of_pair.of));
      pairs = _mm512_add_epi8(columns, group);
      group = _mm512_add_epi8(group, _mm512_set1_epi8(2 * group_columns_of_pair));
      kinds = _mm512_srli_epi32(kinds, 4);
    }
    if constexpr (halves_are_vectors) {
      const __m512i lower = _mm512_set1_epi8(15);
      if (v % 2) return _mm512_and_si512(_mm512_srli_epi16(halves, 4), lower);
      ahead.fetch(at);
      halves = load<__m512i>(at);
      at += 2 * vector_bytes;
      return _mm512_and_si512(halves, lower);
    }
    ahead.fetch(at);
    const __m512i stored =
        value_bits == 4 ? unpack_halves(load<__m256i>(at)) : load<__m512i>(at);
    if constexpr (!masked) {
      at += vector_bytes;
      return stored;
    } else {
      const Mask mask = load<Mask>(head + v * sizeof(Mask));
      at += bytes_of(__builtin_popcountll(mask));
      return _mm512_mask_expand_epi8(_mm512_set1_epi8(cut), mask, stored);
    }
  }
};

// One column of a vector as floats that are integers still.
SC_INLINE __m512 integers_of(__m512i codes, int column) {
  const __m512i shifted = _mm512_srli_epi32(codes, 8 * column);
  if constexpr (value_bits == 4) {
    const Floats<16> values = iota<float, 16>() - static_cast<float>(cut);
    // Of an index only the lowest four bits count.
    return _mm512_permutexvar_ps(shifted, (__m512)values);
  } else {
    // An integer in the mantissa of 2^23: no conversion, and the difference is exact.
    const __m512i exponent = _mm512_set1_epi32(0x4b000000);
    const __m512i bytes = _mm512_set1_epi32(255);
    const __m512i joined = _mm512_ternarylogic_epi32(shifted, bytes, exponent, 0xea);
    return _mm512_sub_ps(_mm512_castsi512_ps(joined), _mm512_set1_ps(0x1p23f + cut));
  }
}

// The same, times the scales of its group, where a row has more than one.
SC_INLINE __m512 floats_of(const Reader& reader, __m512i codes, int column) {
  const __m512 floats = integers_of(codes, column);
  if constexpr (group_columns > 0) return _mm512_mul_ps(floats, reader.tile_scales);
  return floats;
}

// Sums of a tile's products with floats, times the scales of its group, where a row has several.
SC_INLINE Sums scale_tile(const Reader& reader, Sums sums) {
  if constexpr (group_columns > 0)
    return (Sums)_mm512_mul_ps((__m512)sums, reader.tile_scales);
  return sums;
}

// sum + vector times the activations x[0 .. depth), before scales.
SC_INLINE Sums multiply_add(const Reader&, Sums sum, __m512i codes, const float* x) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    sum = multiply_expanded(sum, _mm512_castps_si512(integers_of(codes, c)), x + c);
  return sum;
}

SC_INLINE void store_expanded(const Reader&, __m512i codes, uint8_t* out) {
  _mm512_storeu_si512(out, codes);
}

SC_INLINE void store_expanded(const Reader& reader, __m512i codes, float* out) {
#pragma GCC unroll 4
  for (int c = 0; c < depth; ++c)
    _mm512_storeu_ps(out + c * strip_rows, floats_of(reader, codes, c));
}

#if defined(__AVX512BF16__)
// Two columns of a vector, lane by lane side by side.
SC_INLINE __m512i pairs_of(const Reader& reader, __m512i codes, int column) {
  const __m512 first = floats_of(reader, codes, column);
  const __m512 second = floats_of(reader, codes, column + 1);
  if constexpr (group_columns > 0) {
    // Rounded to nearest.
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    const Vector<uint16_t, 32> order = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16((__m512i)order, both);
  }
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
  return (Floats<strip_rows>)load_scales(w.strip_scales(strip)) * sums;
}

}  // namespace
