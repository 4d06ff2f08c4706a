// Few rows of x and integer values: four products of 8-bit integers an instruction (VNNI).
//
// x becomes integers of `planes` bytes, scaled row by row. What they and the codes of W are above the
// numbers that they stand for is taken off at the end of each group of columns (`Excess`).

namespace {

// Columns after which sums are scaled; without groups, so that they do not overflow 32 bits.
constexpr int64_t flush_columns = group_columns > 0 ? group_columns : 1 << 15;
constexpr int64_t flush_tiles = flush_columns / tile_columns;

template <int rows, int strips>
struct IntegerSums {
  __m512 total[strips][rows];
  __m512i partial[strips][rows][planes];
  Excess<rows> excess[strips];

  SC_INLINE IntegerSums() {
#pragma GCC unroll 8
    for (int s = 0; s < strips; ++s) {
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) total[s][i] = _mm512_setzero_ps();
      clear(s);
    }
  }
  SC_INLINE void clear(int s) {
    excess[s] = {};
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) partial[s][i][p] = _mm512_setzero_si512();
  }
  // Scale what was summed since the last time.
  SC_INLINE void flush(int s, const bfloat16* scales) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 2
      for (int p = planes - 1; p >= 0; --p) {
        const __m512i sums = _mm512_sub_epi32(partial[s][i][p], excess[s].of(i, p));
        const __m512 part = _mm512_cvtepi32_ps(sums);
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256.0f), part);
      }
      total[s][i] = _mm512_fmadd_ps(sum, load_scales(scales), total[s][i]);
    }
    clear(s);
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
    sums.excess[s].add_tile(x, place);
  };
  const auto add_vector = [&](int s, int v, int64_t place) SC_INLINED {
    const __m512i w = operand_of(readers[s].next(v));
    sums.excess[s].add_vector(w);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) {
        __m512i& sum = sums.partial[s][i][p];
        sum = x.template add_products<rows>(sum, readers[s], w, p, i, place, v);
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

// Rows [m0, m0 + there) of y, of a range of strips.
template <int rows, int strips>
inline void decode_groups(const SCLinearArguments& a, const Strips& w, const Integers& x, Range part,
                          int64_t m0, int64_t there) {
  int64_t strip = part.begin;
  for (; strip + strips <= part.end; strip += strips) {
    float sums[strips * rows * strip_rows];
    decode_group<rows, strips>(w, strip, part.end, x, sums);
    for (int s = 0; s < strips; ++s) {
      const int64_t first = (strip + s) * strip_rows, last = first + strip_rows;
      finish(a, w.n, {first, last < w.n ? last : w.n}, m0, there, sums + s * rows * strip_rows);
    }
  }
  if constexpr (strips > 1)
    decode_groups<rows, 1>(a, w, x, {strip, part.end}, m0, there);
}

template <int rows>
inline void decode_strips(const SCLinearArguments& a, const Strips& w, const Integers& x,
                          Range part) {
  constexpr int most = 16 / (rows * planes);
  constexpr int strips = most < 1 ? 1 : most < decode_streams ? most : decode_streams;
  decode_groups<rows, strips>(a, w, x, part, 0, a.m);
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
