// Rows of x side by side, so that a value of W meets all of them in a vector.

namespace {

// Columns of x, `lanes` rows of it from m0, as [columns][width] floats; what x has not is zero.
template <int width>
inline void transpose(const SCLinearArguments& a, int64_t k, int64_t m0, int64_t lanes,
                      Range columns, const float* scales, float* out) {
  constexpr int64_t step = 16;
  for (int64_t c0 = columns.begin; c0 < columns.end; c0 += step) {
    const int64_t end = c0 + step < columns.end ? c0 + step : columns.end;
    const int64_t stop = end < k ? end : k;
    std::memset(out + c0 * width, 0, sizeof(float) * (end - c0) * width);
    for (int64_t j = 0; j < lanes; ++j)
      for (int64_t c = c0; c < stop; ++c)
        out[c * width + j] = round_activation(
            to_float(static_cast<const Element*>(a.x)[(m0 + j) * k + c]), scales[j]);
  }
}

}  // namespace
