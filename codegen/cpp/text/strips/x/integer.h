// Few rows of x as integers of some bytes, whose products are summed by VNNI, four an instruction.
//
// x = scale * (sum(256^p * plane p) - middle). One side of VNNI's products is unsigned: the codes of
// W, `cut` above their values, by signed planes without a middle; where tiles are paired the planes,
// since of every row of W other columns of x are chosen, and W is signed. What that makes too much is
// taken off at the end of each group of columns.

namespace {

// Two bytes round x to 16 bits of a row's largest element. Other x is rounded to one, or not so at all.
constexpr int planes = rounds_activations ? 1 : 2;
constexpr float plane_units[] = {1.0f, 256.0f};  // in scales of a row
// No more columns are summed in 32 bits.
constexpr int64_t columns_in_sum = 1 << 15;
constexpr int32_t middle = paired ? 1 << (8 * planes - 1) : 0;
using Plane = std::conditional_t<paired, uint8_t, int8_t>;

// A vector of codes, and, where tiles are paired, the columns that they were kept of.
struct Operands {
  __m512i codes, pairs;
};
SC_INLINE Operands operand_of(const Reader& reader, __m512i codes) {
  if constexpr (!paired) return {codes, codes};
  const __m512i values = _mm512_sub_epi8(codes, _mm512_set1_epi8(static_cast<char>(cut)));
  return {values, reader.kept.pairs};
}

// The rows of x, those of a tile of columns together: one register tells where all of them are.
struct IntegerRows {
  static constexpr int sums_of_row = planes;

  int64_t rows, tiles;
  Plane* values;   // [tile][plane][row][tile_columns]
  int32_t* sums;   // [tile][plane][row], of the tile's columns, where that is what is too much
  float* scales;   // [row]

  static int64_t bytes(int64_t rows, int64_t k) {
    const int64_t lines = rows * planes * ceil_div(k, tile_columns);
    return lines * (tile_columns + sizeof(int32_t)) + rows * sizeof(float);
  }
  IntegerRows(int64_t rows, int64_t k, void* memory)
      : rows(rows), tiles(ceil_div(k, tile_columns)), values(static_cast<Plane*>(memory)) {
    sums = reinterpret_cast<int32_t*>(values + planes * rows * tiles * tile_columns);
    scales = reinterpret_cast<float*>(sums + planes * rows * tiles);
  }

  // One row; beyond `k`, and where there is no row, zeros.
  void fill(int64_t row, const Element* x, int64_t k) {
    scales[row] = x ? row_scale(x, k) : 1.0f;
    for (int64_t t = 0, c = 0; t < tiles; ++t, c += tile_columns) {
      const TileOfRow part(x ? x + c : x, x ? k - c : 0);
      fill_tile(row, t, part.data());
    }
  }

  // sum += the columns of a tile's vector `v` times those of one row of x.
  template <int all_rows>
  SC_INLINE __m512i add_products(__m512i sum, const Operands& w, int p, int row, int64_t tile,
                                 int v) const {
    const Plane* x = values + ((tile * planes + p) * all_rows + row) * tile_columns;
    if constexpr (paired) {
      const __m512i all = _mm512_castsi256_si512(load<__m256i>(x));
      return _mm512_dpbusd_epi32(sum, _mm512_permutexvar_epi8(w.pairs, all), w.codes);
    }
    return _mm512_dpbusd_epi32(sum, w.codes, _mm512_set1_epi32(load<int32_t>(x + v * depth)));
  }

 private:
  // Where a row holds infinities or NaNs, so do its products.
  static float row_scale(const Element* x, int64_t k) {
    if constexpr (rounds_activations) return activation_scale(x, k);
    constexpr float largest = 32639;  // 127 in both planes
    constexpr float least = 0x1p-126f;  // the inverse of a smaller one is infinite
    const float scale = largest_magnitude(x, k) / largest;
    return scale < least ? least : scale;
  }
  SC_INLINE void fill_tile(int64_t row, int64_t tile, const Element* x) {
    const int64_t line = tile * planes * rows + row;
    __m512i totals[planes] = {};
#pragma GCC unroll 2
    for (int c = 0; c < tile_columns; c += 16) {
      __m512i rest = round_activations(x + c, scales[row]);
      rest = _mm512_add_epi32(rest, _mm512_set1_epi32(middle));
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) {
        const __m128i bytes = _mm512_cvtepi32_epi8(rest);
        const __m512i low = paired ? _mm512_cvtepu8_epi32(bytes) : _mm512_cvtepi8_epi32(bytes);
        store(values + (line + p * rows) * tile_columns + c, bytes);
        totals[p] = _mm512_add_epi32(totals[p], low);
        rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, low), 8);
      }
    }
    // Where W has the excess nothing reads them.
    for (int p = 0; !paired && p < planes; ++p)
      sums[line + p * rows] = _mm512_reduce_add_epi32(totals[p]);
  }
};

// What the sums of a strip have too much.
template <int rows>
struct Excess {
  int32_t of_x[rows][planes] = {};            // sums of x, `cut` times
  __m512i of_w = _mm512_setzero_si512();      // sums of W, `middle` times

  SC_INLINE void add_tile(const IntegerRows& x, int64_t tile) {
#pragma GCC unroll 8
    for (int i = 0; !paired && i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) of_x[i][p] += x.sums[(tile * planes + p) * rows + i];
  }
  SC_INLINE void add_vector(const Operands& w) {
    if constexpr (paired) of_w = _mm512_dpbusd_epi32(of_w, _mm512_set1_epi8(1), w.codes);
  }
  // The sum of a row of x, in its scales.
  SC_INLINE float of_row(int i) const {
    float sum = 0;
    for (int p = planes - 1; p >= 0; --p) sum += static_cast<float>(of_x[i][p]) * plane_units[p];
    return sum;
  }
  SC_INLINE __m512i of(int i, int p) const {
    if constexpr (!paired) return _mm512_set1_epi32(of_x[i][p] * code_middle);
    // The highest plane has all of it.
    return p == planes - 1 ? _mm512_slli_epi32(of_w, 7) : _mm512_setzero_si512();
  }
};

}  // namespace
