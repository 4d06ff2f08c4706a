// Few rows of x and integer values: four products of 8-bit integers an instruction (VNNI).
//
// x becomes integers of `planes` bytes, scaled row by row: x = scale * sum(256^p * plane p), every
// plane signed. Codes are unsigned, `cut` above their value, which is taken off at the end of each
// group of columns: sum((code - cut) * x) = sum(code * x) - cut * sum(x).

namespace {

// Two bytes round x to 16 bits, finer than bfloat16 is. Other x is rounded to one, or not so at all.
constexpr int planes = rounds_activations ? 1 : 2;
// Columns after which sums are scaled; without groups, so that they do not overflow 32 bits.
constexpr int64_t flush_columns = group_columns > 0 ? group_columns : 1 << 15;
constexpr int64_t flush_tiles = flush_columns / tile_columns;

// The rows of x as planes, and for each tile of columns the sum of every plane.
struct Integers {
  int64_t rows, columns, tiles;
  int8_t* values;    // [plane][row][columns]
  int32_t* sums;     // [plane][row][tiles]
  float* scales;     // [row]

  static int64_t bytes(int64_t rows, int64_t k) {
    const int64_t columns = padded_columns(k);
    return rows * (planes * (columns + 4 * (columns / tile_columns)) + 4);
  }
  Integers(int64_t rows, int64_t k, void* memory)
      : rows(rows), columns(padded_columns(k)), tiles(columns / tile_columns) {
    values = static_cast<int8_t*>(memory);
    sums = reinterpret_cast<int32_t*>(values + planes * rows * columns);
    scales = reinterpret_cast<float*>(sums + planes * rows * tiles);
  }
  SC_INLINE const int8_t* plane(int p, int64_t row) const {
    return values + (p * rows + row) * columns;
  }
  SC_INLINE int32_t sum(int p, int64_t row, int64_t tile) const {
    return sums[(p * rows + row) * tiles + tile];
  }

  // One row; beyond `k`, and where there is no row, zeros.
  void fill(int64_t row, const Element* x, int64_t k) {
    scales[row] = x ? row_scale(x, k) : 1.0f;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = t * tile_columns, rest = k - first;
      Element part[tile_columns] = {};
      if (x) std::memcpy(part, x + first, sizeof(Element) * (rest < tile_columns ? rest : tile_columns));
      fill_tile(row, t, part);
    }
  }

 private:
  // Where a row holds infinities or NaNs, so do its products.
  static float row_scale(const Element* x, int64_t k) {
    if constexpr (rounds_activations) return activation_scale(x, k);
    constexpr float largest = 32639;  // 127 in both planes
    const float scale = largest_magnitude(x, k) / largest;
    return scale == 0.0f ? 1.0f : scale;
  }
  void fill_tile(int64_t row, int64_t tile, const Element* x) {
    int32_t integers[tile_columns];
    for (int c = 0; c < tile_columns; c += 16)
      _mm512_storeu_si512(integers + c, round_activations(x + c, scales[row]));
    for (int p = 0; p < planes; ++p) {
      int8_t* out = values + (p * rows + row) * columns + tile * tile_columns;
      int32_t total = 0;
      for (int c = 0; c < tile_columns; ++c) {
        const int8_t low = static_cast<int8_t>(integers[c]);
        out[c] = low;
        total += low;
        integers[c] = (integers[c] - low) >> 8;
      }
      sums[(p * rows + row) * tiles + tile] = total;
    }
  }
};

template <int rows, int strips>
struct IntegerSums {
  __m512 total[strips][rows];
  __m512i partial[strips][rows][planes];
  int32_t taken[strips][rows][planes];  // sums of x under the codes of `partial`

  SC_INLINE IntegerSums() {
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s)
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        total[s][i] = _mm512_setzero_ps();
        clear(s, i);
      }
  }
  SC_INLINE void clear(int s, int i) {
#pragma GCC unroll 2
    for (int p = 0; p < planes; ++p) {
      partial[s][i][p] = _mm512_setzero_si512();
      taken[s][i][p] = 0;
    }
  }
  // Scale what was summed since the last time.
  SC_INLINE void flush(int s, const bfloat16* scales) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 2
      for (int p = planes - 1; p >= 0; --p) {
        const __m512i above = _mm512_set1_epi32(taken[s][i][p] * static_cast<int32_t>(cut));
        const __m512 part = _mm512_cvtepi32_ps(_mm512_sub_epi32(partial[s][i][p], above));
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0f), part);
      }
      total[s][i] = _mm512_fmadd_ps(sum, load_scales(scales), total[s][i]);
      clear(s, i);
    }
  }
};

template <int rows, int strips>
SC_INLINE void decode_group(const Strips& w, int64_t strip, int64_t last, const Integers& x,
                            float* out) {
  IntegerSums<rows, strips> sums;
  Reader readers[strips];
  int64_t common = w.tiles;
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    readers[s].open_strip(w, strip + s, strip + s + strips, last);
    const int64_t present = w.present_tiles(strip + s);
    common = present < common ? present : common;
  }
  const auto open_tile = [&](int s, int64_t place) SC_INLINED {
    readers[s].open_tile(w, strip + s, place);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) sums.taken[s][i][p] += x.sum(p, i, place);
  };
  const auto add_vector = [&](int s, int v, int64_t place) SC_INLINED {
    const __m512i codes = readers[s].next(v);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) {
        const int8_t* four = x.plane(p, i) + place * tile_columns + v * depth;
        __m512i& sum = sums.partial[s][i][p];
        sum = _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(load<int32_t>(four)));
      }
  };
  const auto close_tile = [&](int s, int64_t t, int64_t place) SC_INLINED {
    // The last tile of a group of columns, or of those that are there.
    const int64_t present = w.present_tiles(strip + s);
    if (t + 1 == present || w.place(strip + s, t + 1) / flush_tiles != place / flush_tiles)
      sums.flush(s, readers[s].scales);
  };
  for (int64_t t = 0; t < common; ++t) {
    int64_t places[strips];
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) {
      places[s] = w.place(strip + s, t);
      open_tile(s, places[s]);
    }
    // Strip by strip: a product would wait for the one before.
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 8
      for (int s = 0; s < strips; ++s) add_vector(s, v, places[s]);
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) close_tile(s, t, places[s]);
  }
#pragma GCC unroll 8
  for (int s = 0; s < strips; ++s) {
    for (int64_t t = common; skips && t < w.present_tiles(strip + s); ++t) {
      const int64_t place = w.place(strip + s, t);
      open_tile(s, place);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) add_vector(s, v, place);
      close_tile(s, t, place);
    }
    for (int i = 0; i < rows; ++i)
      _mm512_storeu_ps(out + (s * rows + i) * strip_rows,
                       _mm512_mul_ps(sums.total[s][i], _mm512_set1_ps(x.scales[i])));
  }
}

template <int rows, int strips>
inline int64_t decode_groups(const SCLinearArguments& a, const Strips& w, const Integers& x,
                             Range part) {
  int64_t strip = part.begin;
  for (; strip + strips <= part.end; strip += strips) {
    float sums[strips * rows * strip_rows];
    decode_group<rows, strips>(w, strip, part.end, x, sums);
    for (int s = 0; s < strips; ++s) {
      const int64_t first = (strip + s) * strip_rows, last = first + strip_rows;
      finish(a, w.n, {first, last < w.n ? last : w.n}, 0, a.m, sums + s * rows * strip_rows);
    }
  }
  return strip;
}

template <int rows>
inline void decode_strips(const SCLinearArguments& a, const Strips& w, const Integers& x,
                          Range part) {
  constexpr int most = 16 / (rows * planes);
  constexpr int strips = most < 1 ? 1 : most < decode_streams ? most : decode_streams;
  part.begin = decode_groups<rows, strips>(a, w, x, part);
  decode_groups<rows, 1>(a, w, x, part);
}

inline int64_t decode_workspace(const Strips& w) { return Integers::bytes(decode_rows, w.k); }

}  // namespace

SC_EXPORT void sc_linear_decode(const SCLinearArguments* arguments) {
  const SCLinearArguments& a = *arguments;
  const Strips w(a.weight);
  const int64_t rows = a.m <= 2 ? a.m : a.m <= 4 ? 4 : 8;
  Integers x(rows, w.k, a.workspace);
  for (int64_t i = 0; i < rows; ++i)
    x.fill(i, i < a.m ? static_cast<const Element*>(a.x) + i * w.k : nullptr, w.k);
  parallel(useful_threads(a, header_of(a.weight).slots * rows), [&](int64_t thread, int64_t of) {
    const Range part = share(w.strips, thread, of);
    if (rows == 1) decode_strips<1>(a, w, x, part);
    if (rows == 2) decode_strips<2>(a, w, x, part);
    if (rows == 4) decode_strips<4>(a, w, x, part);
    if (rows == 8) decode_strips<8>(a, w, x, part);
  });
}
