// Many rows of x as floats, turned.
//   x        [tile of rows][columns][rows of the tile] floats

namespace {

constexpr bool scales_x = rounds_activations;
inline float batch_scale(const Element* x, int64_t k) { return activation_scale(x, k); }

// As many elements of x as a vector has; where they are rounded, as integers.
SC_INLINE Values activations_at(const Element* x, float scale) {
  if constexpr (!rounds_activations) return load_floats<lanes>(x);
  return __builtin_convertvector((Ints<lanes>)round_activations(x, scale), Values);
}

// Rows of x from `row` and 32 columns from `c0`, turned: [32 columns][width].
SC_INLINE void pack_square(const SCLinearArguments& a, int64_t k, int64_t row, int64_t rows,
                           int64_t c0, int64_t width, const float* scales, Word* out) {
  const Element* x = static_cast<const Element*>(a.x) + row * k + c0;
  for (int64_t c = 0; c < tile_columns; c += lanes) {
    Values square[lanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) {
      const int64_t left = i < rows ? k - c0 - c : 0;
      const float scale = scales_x && i < rows ? scales[i] : 1.0f;
      if (left >= lanes) {
        square[i] = activations_at(x + i * k + c, scale);
      } else {
        Element padded[lanes] = {};
        if (left > 0) std::memcpy(padded, x + i * k + c, sizeof(Element) * left);
        square[i] = activations_at(padded, scale);
      }
    }
    turn(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < lanes; ++i) store(out + (c + i) * width, square[i]);
  }
}

}  // namespace
