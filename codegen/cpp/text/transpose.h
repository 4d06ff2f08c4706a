// Rows of x side by side, so that a value of W meets all of them in a vector; and back.

namespace {

// Columns of x, `lanes` rows of it from m0, as [columns][width] floats; what x has not is zero.
template <int width>
inline void transpose(const SCLinearArguments& a, int64_t k, int64_t m0, int64_t lanes,
                      Range columns, const float* scales, float* out) {
  constexpr int64_t step = native_floats;
  const Element* x = static_cast<const Element*>(a.x) + m0 * k;
  for (int64_t c0 = columns.begin; c0 < columns.end; c0 += step) {
    const int64_t end = c0 + step < columns.end ? c0 + step : columns.end;
    if (!rounds_activations && width % step == 0 && c0 + step <= k && c0 + step <= end) {
      for (int64_t j0 = 0; j0 < width; j0 += step) {
        Values rows[step];
#pragma GCC unroll 16
        for (int64_t j = 0; j < step; ++j)
          rows[j] = j0 + j < lanes ? load_floats<step>(x + (j0 + j) * k + c0) : Values{};
        turn(rows);
#pragma GCC unroll 16
        for (int64_t c = 0; c < step; ++c) store(out + (c0 + c) * width + j0, rows[c]);
      }
      continue;
    }
    const int64_t stop = end < k ? end : k;
    std::memset(out + c0 * width, 0, sizeof(float) * (end - c0) * width);
    for (int64_t j = 0; j < lanes; ++j)
      for (int64_t c = c0; c < stop; ++c)
        out[c * width + j] = round_activation(to_float(x[j * k + c]), scales[j]);
  }
}

struct Unscaled {
  SC_INLINE Values operator()(int64_t, Values sums) const { return sums; }
};

// y[rows] for `lanes` rows of x from m0, of sums [rows][width], scaled for one of these rows at a time;
// behind them a vector may be read.
template <class Scale = Unscaled>
SC_SHARED void finish_turned(const SCLinearArguments& a, int64_t n, Range rows, int64_t m0,
                             int64_t lanes, int64_t width, const float* sums, Scale scale = {}) {
  constexpr int64_t step = native_floats;
  for (int64_t j0 = 0; j0 < lanes; j0 += step) {
    for (int64_t first = rows.begin; first < rows.end; first += step) {
      const Range part = {first, first + step < rows.end ? first + step : rows.end};
      const float* from = sums + (first - rows.begin) * width + j0;
      Values turned[step];
#pragma GCC unroll 16
      for (int64_t r = 0; r < step; ++r)
        turned[r] = first + r < rows.end ? load<Values>(from + r * width) : Values{};
      turn(turned);
      finish_sums(a, n, part, m0 + j0, lanes - j0 < step ? lanes - j0 : step,
                  [&](int64_t j, int64_t) SC_INLINED { return scale(j0 + j, turned[j]); });
    }
  }
}

}  // namespace
