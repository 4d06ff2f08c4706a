// Many rows of x as pairs of bfloat16, turned.
//   x        [tile of rows][columns / 2][rows of the tile] pairs

namespace {

// x is multiplied as it is.
constexpr bool scales_x = false;
inline float batch_scale(const Element*, int64_t) { return 1.0f; }

// Sixteen rows of x from `row` and 32 columns from `c0`, turned: [16 pairs][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, const float*, Word* out) {
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

}  // namespace
