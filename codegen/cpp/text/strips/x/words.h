// Few rows of x as integers of 16 bits, whose products with those of W are summed two an instruction.
//
// x = scale * integer, where the largest element of a row is 32767; where x is rounded to 8 bits, these
// are the integers. What is missing to floats of more bits is a second plane, of 1/32768 of the scale:
// 2^-31 of the largest element, which is less than one rounding of the sum.
// Codes of W are `cut` above their values. That is taken off W where tiles are paired, since of every
// row of W other columns of x are chosen, and elsewhere off the sums of each group of columns.

namespace {

constexpr int planes = rounds_activations || std::is_same_v<Element, bfloat16> ? 1 : 2;
constexpr float lower_steps = 32768;  // to one of the upper plane
constexpr float plane_units[] = {planes == 2 ? 1 / lower_steps : 1.0f, 1.0f};  // in scales of a row
constexpr float largest_integer = 32767;
constexpr float least_scale = 0x1p-126f;  // the inverse of a smaller one is infinite
// Sums of so many columns fit into 32 bits: products with codes of a byte.
constexpr int64_t columns_in_sum = rounds_activations ? 1 << 15 : 256;

// A vector of codes as integers of 16 bits: every other column, and the others; or pairs, and the bytes
// that they were kept of among those of four columns.
struct Operands {
  Register words, others;
};
SC_INLINE Operands operand_of(const Reader& reader, Register codes) {
  if constexpr (paired) {
    const Register words = _mm256_sub_epi16(codes, _mm256_set1_epi16(cut));
    return {words, look_up(places_of_pair.bytes, reader.kept.kind)};
  }
  return {_mm256_and_si256(codes, _mm256_set1_epi16(255)), _mm256_srli_epi16(codes, 8)};
}

// sum + the products of pairs of words, one after the other: GCC would keep all of them for a sum that
// it finds shorter.
SC_INLINE Register add_products_of_pairs(Register sum, Register w, Register x) {
#if defined(__AVXVNNI__)
  sum = _mm256_dpwssd_avx_epi32(sum, w, x);
#else
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w, x));
#endif
  asm("" : "+x"(sum));
  return sum;
}

// Where a row holds infinities or NaNs, so do its products.
inline float row_scale(const Element* x, int64_t k) {
  if constexpr (rounds_activations) return activation_scale(x, k);
  const float scale = largest_magnitude(x, k) / largest_integer;
  return scale < least_scale ? least_scale : scale;
}

// The rows of x, those of a tile of columns together: one register tells where all of them are. Of
// four columns the second and third change places, as `operand_of` has them, unless tiles are paired.
struct IntegerRows {
  static constexpr int sums_of_row = planes;

  int64_t rows, tiles;
  int16_t* values;  // [tile][row][plane][tile_columns], the lower plane first
  int32_t* sums;    // [tile][row][plane], of the tile's columns
  float* scales;    // [row]

  static int64_t bytes(int64_t rows, int64_t k) {
    const int64_t lines = rows * planes * ceil_div(k, tile_columns);
    return lines * (tile_columns * sizeof(int16_t) + sizeof(int32_t)) + rows * sizeof(float);
  }
  IntegerRows(int64_t rows, int64_t k, void* memory)
      : rows(rows), tiles(ceil_div(k, tile_columns)), values(static_cast<int16_t*>(memory)) {
    sums = reinterpret_cast<int32_t*>(values + rows * planes * tiles * tile_columns);
    scales = reinterpret_cast<float*>(sums + rows * planes * tiles);
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
  SC_INLINE Register add_products(Register sum, const Operands& w, int p, int row, int64_t tile,
                                  int v) const {
    const int64_t line = (tile * all_rows + row) * planes + p;
    const int16_t* x = values + line * tile_columns + first_activation(v);
    if constexpr (paired) {
      const Register four = _mm256_set1_epi64x(load<int64_t>(x));
      return add_products_of_pairs(sum, w.words, _mm256_shuffle_epi8(four, w.others));
    }
    const Register even = _mm256_set1_epi32(load<int32_t>(x));
    const Register odd = _mm256_set1_epi32(load<int32_t>(x + 2));
    return add_products_of_pairs(add_products_of_pairs(sum, w.words, even), w.others, odd);
  }

 private:
  SC_INLINE void fill_tile(int64_t row, int64_t tile, const Element* x) {
    const int64_t line = (tile * rows + row) * planes;
    int32_t totals[planes] = {};
    for (int64_t c = 0; c < tile_columns; c += strip_rows) {
      Register integers[planes];
      integers[planes - 1] = round_activations(x + c, scales[row]);
      if constexpr (planes == 2) integers[0] = rest_of(x + c, scales[row], integers[1]);
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) {
        int16_t words[strip_rows];
        store(words, __builtin_convertvector((Ints<strip_rows>)integers[p], Vector<int16_t, strip_rows>));
        for (const int16_t word : words) totals[p] += word;
        for (int i = 0; !paired && i < strip_rows; i += 4) std::swap(words[i + 1], words[i + 2]);
        store(values + (line + p) * tile_columns + c, load<__m128i>(words));
      }
    }
    for (int p = 0; p < planes; ++p) sums[line + p] = totals[p];
  }
  // What integers of x are short of, as integers of the lower plane.
  static SC_INLINE Register rest_of(const Element* x, float scale, Register integers) {
    const Singles near = _mm256_cvtepi32_ps(integers);
    const Singles rest = fused_multiply_subtract(near, broadcast(scale), load_floats<strip_rows>(x));
    return round_to_integers(rest * broadcast(1.0f / scale) * broadcast(lower_steps));
  }
};

// What the sums of a strip have too much: sums of x, `cut` times.
template <int rows>
struct Excess {
  int32_t of_x[rows][planes] = {};

  SC_INLINE void add_tile(const IntegerRows& x, int64_t tile) {
#pragma GCC unroll 8
    for (int i = 0; !paired && i < rows; ++i)
#pragma GCC unroll 2
      for (int p = 0; p < planes; ++p) of_x[i][p] += x.sums[(tile * rows + i) * planes + p];
  }
  SC_INLINE void add_vector(const Operands&) {}
  // The sum of a row of x, in its scales.
  SC_INLINE float of_row(int i) const {
    float sum = 0;
    for (int p = planes - 1; p >= 0; --p) sum += static_cast<float>(of_x[i][p]) * plane_units[p];
    return sum;
  }
  SC_INLINE Register of(int i, int p) const {
    return _mm256_set1_epi32(of_x[i][p] * code_middle);
  }
};

}  // namespace
