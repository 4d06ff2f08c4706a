// Many rows of x for paired tiles of W.
//
// Of four activations six pairs can be made. For some columns all of them are laid side by side
// once, a row of x in each lane.
//   x        [tile of rows][columns / 2][rows of the tile] pairs of bfloat16
//   kinds    [group of four columns][6][rows of a tile]: the pairs that can be made of x

namespace {

constexpr int64_t tile_groups = tile_columns / group_columns_of_pair;
constexpr int64_t lanes = native_floats;
constexpr int64_t widest = x_vectors;
constexpr int64_t kind_bytes = widest * lanes * sizeof(uint32_t);
constexpr int64_t group_bytes = pair_kinds * kind_bytes;

// How many rows of x are multiplied together where so many are left.
SC_INLINE int64_t width_of(int64_t rest) {
  return rest <= lanes ? lanes : rest <= 2 * lanes ? 2 * lanes : widest * lanes;
}

template <class Run>
SC_INLINE void with_width(int64_t width, Run&& run) {
  if (width == lanes) {
    run(lane<1>());
  } else if (width == 2 * lanes) {
    run(lane<2>());
  } else {
    run(lane<widest>());
  }
}

// Call visit(first, width) for the tiles of so many rows of x.
template <class Visit>
SC_INLINE void for_each_tile(int64_t rows, Visit&& visit) {
  for (int64_t first = 0; first < rows; first += widest * lanes)
    visit(first, width_of(rows - first));
}

inline int64_t padded_rows(int64_t rows) {
  int64_t padded = 0;
  for_each_tile(rows, [&](int64_t first, int64_t width) { padded = first + width; });
  return padded;
}

// Sixteen rows of x from `row` and 32 columns from `c0`, turned: [16 pairs][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, uint32_t* out) {
  const bfloat16* x = static_cast<const bfloat16*>(a.x) + row * k + c0;
  Values square[lanes];
  if (rows >= lanes && c0 + tile_columns <= k) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) square[i] = load<Values>(x + i * k);
  } else {
    for (int64_t i = 0; i < lanes; ++i)
      square[i] = load<Values>(TileOfRow(x + i * k, i < rows ? k - c0 : 0).data());
  }
  turn(square);
#pragma GCC unroll 16
  for (int64_t i = 0; i < lanes; ++i) store(out + i * width, square[i]);
}

// Tiles of the panel's x x 32 columns each, turned.
inline void pack_x(const SCLinearArguments& a, int64_t k, int64_t m0, int64_t rows, int64_t thread,
                   int64_t of, uint32_t* x) {
  const int64_t columns = padded_columns(k), squares = columns / tile_columns;
  const Range part = share(padded_rows(rows) / lanes * squares, thread, of);
  for (int64_t step = part.begin; step < part.end; ++step) {
    const int64_t row = step / squares * lanes, c0 = step % squares * tile_columns;
    const int64_t first = row / (widest * lanes) * (widest * lanes);
    const int64_t width = width_of(rows - first);
    pack_square(a, k, m0 + row, rows - row, c0, width,
                x + first * columns / 2 + c0 / 2 * width + row - first);
  }
}

// The pairs that can be made of four activations: x [groups][2][width] -> [groups][6].
template <int vectors_of_x>
SC_SHARED void make_kinds(const uint32_t* x, int64_t groups, char* kinds) {
  constexpr __mmask32 upper = 0xaaaaaaaa;
  constexpr int64_t width = vectors_of_x * lanes;
  for (int64_t g = 0; g < groups; ++g, x += 2 * width, kinds += group_bytes) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors_of_x; ++v) {
      const __m512i ab = load<__m512i>(x + v * lanes), cd = load<__m512i>(x + width + v * lanes);
      const __m512i b = _mm512_srli_epi32(ab, 16), c = _mm512_slli_epi32(cd, 16);
      char* out = kinds + v * sizeof(__m512i);
      store(out, ab);
      store(out + kind_bytes, _mm512_mask_blend_epi16(upper, ab, c));
      store(out + 2 * kind_bytes, _mm512_mask_blend_epi16(upper, ab, cd));
      store(out + 3 * kind_bytes, _mm512_or_si512(b, c));
      store(out + 4 * kind_bytes, _mm512_mask_blend_epi16(upper, b, cd));
      store(out + 5 * kind_bytes, cd);
    }
  }
}

}  // namespace
