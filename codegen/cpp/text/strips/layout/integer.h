// Vectors of integer values of the layout `strips`: codes are integers above zero, `cut` stands for
// zero; scales come in while a tile is expanded, or, where a row has one, at the end.

namespace {

template <class Out>
inline Out element_of(const Strips& w, Code value, int64_t row, int64_t column) {
  const Scale* scales = w.strip_scales(row / strip_rows) + column / group_step * strip_rows;
  const float integer = static_cast<float>(static_cast<int>(value) - cut);
  return from_float<Out>(integer * to_float(scales[row % strip_rows]));
}

// Scales of a strip, lanes side by side; lanes without a row have none.
inline void write_scales(const Weight& w, int64_t strip, Scale* out) {
  const int64_t groups = scale_groups(w.k);
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t lane = 0; lane < strip_rows; ++lane) {
      const int64_t row = strip * strip_rows + lane;
      *out++ = row < w.n ? w.scales[row * groups + group] : Scale{};
    }
}

SC_INLINE Floats<strip_rows> load_scales(const Scale* scales) {
  return load_floats<strip_rows>(scales);
}

// The lower four bits of every byte.
SC_INLINE Register lower_halves(Register bytes) {
  return (Register)((Vector<uint8_t, sizeof(Register)>)bytes & 15);
}

// Reads the vectors of a strip one after the other.
struct Reader {
  const char* at = nullptr;
  const char* head = nullptr;
  const Scale* scales = nullptr;  // of the tile's group of columns
  Floats<strip_rows> tile_scales;    // the same as floats
  Register halves;                   // two vectors of four bits
  KeptColumns kept;
  Lookahead ahead;

  SC_INLINE void open_strip(const Strips& w, int64_t strip, int64_t next, int64_t last) {
    at = w.stream + w.offsets[strip];
    ahead.open_strip(w, strip, next, last);
  }
  SC_INLINE void open_tile(const Strips& w, int64_t strip, int64_t place) {
    ahead.open_tile(at);
    head = at;
    at += head_bytes;
    if constexpr (paired) kept.open_tile(head);
    scales = w.strip_scales(strip) + place * tile_columns / group_step * strip_rows;
    tile_scales = load_scales(scales);
  }
  // The codes of the tile's next vector, `v`, `cut` where nothing was kept.
  SC_INLINE Register next(int v) {
    if constexpr (paired) kept.next(v);
    if constexpr (halves_are_vectors) {
      if (v % 2) return lower_halves((Register)((Words)halves >> 4));
      ahead.fetch(at);
      halves = load_two_vectors(at);
      at += 2 * vector_bytes;
      return lower_halves(halves);
    }
    ahead.fetch(at);
    const char* from = at;
    if constexpr (!masked) {
      at += vector_bytes;
      return load_codes(from);
    } else {
      const Mask mask = load<Mask>(head + v * sizeof(Mask));
      at += bytes_of(__builtin_popcountll(mask));
      return expand_codes(mask, from);
    }
  }
};

// The same, times the scales of its group, where a row has more than one.
SC_INLINE Singles floats_of(const Reader& reader, Register codes, int column) {
  const Singles floats = integers_of(codes, column);
  if constexpr (group_columns > 0) return (Singles)(floats * (Singles)reader.tile_scales);
  return floats;
}

// Sums of a tile's products with floats, times the scales of its group, where a row has several.
SC_INLINE Sums scale_tile(const Reader& reader, Sums sums) {
  if constexpr (group_columns > 0) return (Sums)((Floats<strip_rows>)sums * reader.tile_scales);
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
  return load_scales(w.strip_scales(strip)) * sums;
}

}  // namespace
