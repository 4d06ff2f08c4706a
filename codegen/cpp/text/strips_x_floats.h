// Many rows of x as floats, turned.
//   x        [tile of rows][columns][rows of the tile] floats

namespace {

// x is multiplied as it is.
constexpr bool scales_x = false;
inline float batch_scale(const Element*, int64_t) { return 1.0f; }

// Rows of x from `row` and 32 columns from `c0`, turned: [32 columns][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, const float*, Word* out) {
  const Element* x = static_cast<const Element*>(a.x) + row * k + c0;
  for (int64_t c = 0; c < tile_columns; c += lanes) {
    Values square[lanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) {
      if (i < rows && c0 + c + lanes <= k) {
        square[i] = load_floats<lanes>(x + i * k + c);
      } else {
        const int64_t left = i < rows ? k - c0 - c : 0;
        square[i] = left > 0 ? load_values(x + i * k, c, left) : Values{};
      }
    }
    turn(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) store(out + (c + i) * width, square[i]);
  }
}

}  // namespace
